"""Submits jobs while a fault lasts, and records what became of them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from jobtape.schemas.job import FINAL
from jobtape.schemas.queueing.gates import DebounceKey, Gates, Limit, UniqueKey
from jobtape.view.store import Store
from tests.consumer.installation import Rig, order_event
from tests.ledger import Ledger
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

AT_ONCE = 500
GATES = [
    None,
    None,
    None,
    *(Gates(ordering_key=str(n)) for n in range(11)),
    Gates(limits=(Limit(name="few", at_most=20),)),
    Gates(limits=(Limit(name="rate", at_most=100, per=1.0),), ordering_key="rated"),
    Gates(unique=UniqueKey(name="u", key="kept")),
    Gates(unique=UniqueKey(name="u", key="replaced", conflict="replace")),
    Gates(debounce=DebounceKey(name="d", seconds=0.5, at_most=2.0)),
]
"""One of each kind, for jobs in turn."""
_SYNC = "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()]."
_OUTCOMES = frozenset(state.value for state in FINAL)


async def sync_declarations(node: PrivateNode) -> None:
    """Let the node write declarations to disk, which RabbitMQ 3.10 does with a delay. Call it before ``node.kill``;
    confirmed messages do not need it.
    """
    await asyncio.to_thread(node.ctl, "eval", _SYNC)


async def submit(
    rig: Rig, ledger: Ledger, n: int, *, seconds: float = 0.01, gates: Sequence[Gates | None] = (None,)
) -> None:
    """Submit ``n`` jobs, half of them naps, in groups that meet the deadline of a single publish. ``gates``: theirs, in
    turn.
    """
    events = [
        order_event(rig.topology, "nap", {"seconds": seconds}, gates=gates[i % len(gates)])
        if i % 2
        else order_event(rig.topology, "add", {"x": i, "y": 1}, gates=gates[i % len(gates)])
        for i in range(n)
    ]
    for start in range(0, n, AT_ONCE):
        await asyncio.gather(*(ledger.submit(rig.publisher, event) for event in events[start : start + AT_ONCE]))


@asynccontextmanager
async def load(
    rig: Rig, ledger: Ledger, *, at_once: int = 10, pause: float = 0.02, gates: Sequence[Gates | None] = (None,)
) -> AsyncIterator[None]:
    """Submit jobs until the end of the ``async with``. An unknown submission is repeated until it is accepted.
    ``gates``: those of the jobs, in turn.
    """
    ending, turns = asyncio.Event(), itertools.cycle(gates)

    async def client() -> None:
        while not ending.is_set():
            event = order_event(rig.topology, "add", {"x": 1, "y": 1}, gates=next(turns))
            while not await ledger.submit(rig.publisher, event, timeout=2.0):
                if ending.is_set():
                    return
            await asyncio.sleep(pause)  # the pace of the load, not a wait for anything

    clients = [asyncio.create_task(client()) for _ in range(at_once)]
    try:
        yield
    finally:
        ending.set()
        await asyncio.gather(*clients)


def done(rig: Rig) -> set[str]:
    """Return the ids of jobs with an outcome on the tape."""
    return {event.subject for event in rig.events if event.name in _OUTCOMES}


async def gates_are_open(rig: Rig, store: Store, ledger: Ledger) -> None:
    """Check that no slot is left over: the view has none, and a job of each kind runs."""
    await all_done(rig, ledger)
    await eventually(lambda: not store.open_jobs.with_slots(), what="all slots are free")
    await submit(rig, ledger, len(GATES), gates=GATES)
    await all_done(rig, ledger)


async def all_done(rig: Rig, ledger: Ledger, timeout: float = 60) -> None:
    """Wait until every accepted job has an outcome."""
    await eventually(lambda: done(rig).issuperset(ledger.ok), timeout, what="every accepted job has an outcome")
