"""Hundreds of signals against the ends of their times, with a real projector and a real worker."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest

from jobtape import job
from jobtape.schemas.events import Signalled
from jobtape.schemas.events.interventions import signalled
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.consumer.rebuild_helpers import rebuilt
from tests.faults.scale import scaled
from tests.flows import flow_ended, jobs_of, put_flow
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

FLOWS: Final = scaled(3)
SIGNALS: Final = 100
"""Of each flow, the most that there may be."""
FIRST_END: Final = 1.0
BETWEEN_ENDS: Final = 0.02
"""Seconds: the time of each signal ends so much later than that of the one before."""
LATER: Final = 0.01
"""Seconds, up to nine times: the time of a signal ends so much later than that of the clock's signal."""
EARLY: Final = range(10)
"""Signals that come before their flows begin."""
NEVER: Final = range(90, 100)
"""Signals that come after the end of their time only."""


@job("collect")
async def collect(values: dict[str, Any]) -> dict[str, Any]:
    return values


TYPES: Final = (collect,)


def name_of(n: int) -> str:
    return f"s{n:02}"


async def test_of_each_signal_and_the_end_of_its_time_one_wins(rig: Rig, view: Store) -> None:
    """Some signals come before the flows begin. Most come when the time of the same signal of another flow is over, the
    clock, so that signal and end of the time are published at about the same time. All come once more afterwards.
    """
    names = [name_of(n) for n in range(SIGNALS)]
    ends = [FIRST_END + n * BETWEEN_ENDS for n in range(SIGNALS)]
    signals = {name: {"timeout": end + n % 10 * LATER} for n, (name, end) in enumerate(zip(names, ends, strict=True))}
    clock_signals = {name: {"timeout": end} for name, end in zip(names, ends, strict=True)}
    values = {name: {"$from": name} for name in names}
    nodes = {"collect": {"type": "collect", "payload": {"values": values}}}

    async def send(n: int, key: str) -> None:
        jobs = [Job(flow_id, "jobtape.flow", JobState.HELD, 1, 1) for flow_id in flows]
        stamp: dict[str, Any] = {"source": rig.topology.source, "time": datetime.now(UTC)}
        events = [signalled(each, name_of(n), {"key": key}, key, **stamp) for each in jobs]
        await asyncio.gather(*map(rig.publisher.publish, events))

    clock = await put_flow(rig, TYPES, nodes, signals=clock_signals)
    flows = [await put_flow(rig, TYPES, nodes, signals=signals) for _ in range(FLOWS)]
    for n in EARLY:
        await send(n, "first")
    async with rig.projector(view), rig.worker(*TYPES):
        for n in range(EARLY.stop, NEVER.start):
            await eventually(partial(_came, rig, clock, name_of(n)), 60, what=f"the clock's end of {name_of(n)}")
            await send(n, "first")
        ended = [await flow_ended(view, flow_id, 60) for flow_id in flows]
        for n in range(SIGNALS):
            await send(n, "later")
        await Checker(rig.url, rig.topology).check(view)

        await rig.read_to_end()
        won: dict[str, int] = {"signal": 0, "time": 0}
        for flow in ended:
            (got,) = [each.result for each in jobs_of(view, flow.id)]
            assert isinstance(got, dict) and flow.signals is not None
            first = first_events(rig, flow.id)
            for name in names:
                event = first[name].data
                assert got[name] == (None if event.timed_out else {"key": "first"})
                assert flow.signals[name]["timed_out"] is event.timed_out
                won["time" if event.timed_out else "signal"] += 1
            for n in EARLY:
                assert got[name_of(n)] is not None
            for n in NEVER:
                assert got[name_of(n)] is None
        assert sum(won.values()) == FLOWS * SIGNALS
        print(won)
        before = {flow.id: view.job(flow.id) for flow in ended}
        await asyncio.to_thread(rebuilt, view)
        assert {flow_id: view.job(flow_id) for flow_id in before} == before
        report = await Checker(rig.url, rig.topology).check(view)
        assert not report.problems, str(report)


def first_events(rig: Rig, flow_id: str) -> dict[str, Signalled]:
    """Return the first event on the tape for each signal of the flow."""
    found: dict[str, Signalled] = {}
    for event in rig.of(flow_id):
        if isinstance(event, Signalled):
            found.setdefault(event.data.signal, event)
    return found


def _came(rig: Rig, flow_id: str, name: str) -> bool:
    return any(isinstance(event, Signalled) and event.data.signal == name for event in rig.of(flow_id))
