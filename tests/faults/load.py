"""Submits jobs while a fault lasts, and records what became of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from jobtape.schemas.gates import Gates
from jobtape.schemas.job import FINAL
from tests.consumer.installation import Rig, order_event
from tests.ledger import Ledger
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

AT_ONCE = 500
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
async def load(rig: Rig, ledger: Ledger, *, at_once: int = 10, pause: float = 0.02) -> AsyncIterator[None]:
    """Submit jobs until the end of the ``async with``. An unknown submission is repeated until it is accepted."""
    ending = asyncio.Event()

    async def client() -> None:
        while not ending.is_set():
            event = order_event(rig.topology, "add", {"x": 1, "y": 1})
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


async def all_done(rig: Rig, ledger: Ledger, timeout: float = 60) -> None:
    """Wait until every accepted job has an outcome."""
    await eventually(lambda: done(rig).issuperset(ledger.ok), timeout, what="every accepted job has an outcome")
