"""The events ``started`` and ``progressed``, which are published while a handler runs."""

import pytest

from jobtape.consumer.worker.execution import PROGRESS_INTERVAL
from jobtape.consumer.worker.handlers import handlers
from jobtape.schemas.events import Progressed, Started
from tests.consumer import jobs
from tests.consumer.installation import Rig

pytestmark = pytest.mark.anyio


async def test_short_job_publishes_no_started(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "QUICK", 10.0)  # on a busy machine this job may take longer than usual
    async with rig.worker(jobs.add):
        outcome = await rig.outcome(await rig.submit("add", {"x": 1, "y": 1}))
    assert rig.names(outcome.subject) == ["submitted", "succeeded"]
    assert outcome.data.started_at <= outcome.time


async def test_longer_job_publishes_started(rig: Rig) -> None:
    async with rig.worker(jobs.nap):
        outcome = await rig.outcome(await rig.submit("nap", {"seconds": 0.8}))
    _, started, _ = rig.of(outcome.subject)
    assert isinstance(started, Started)
    assert started.data.execution == outcome.data.execution
    assert started.time == outcome.data.started_at
    assert outcome.data.duration >= 0.8


async def test_progress_is_ordered_and_limited_in_rate(rig: Rig) -> None:
    async with rig.worker(jobs.steps):
        outcome = await rig.outcome(await rig.submit("steps", {"n": 100, "pause": 0.01}))
    reports = [event for event in rig.of(outcome.subject) if isinstance(event, Progressed)]
    assert [event.data.n for event in reports] == list(range(1, len(reports) + 1))
    fractions = [event.data.fraction for event in reports]
    assert fractions == sorted(fractions)
    assert 2 <= len(reports) <= outcome.data.duration / PROGRESS_INTERVAL + 1
    assert rig.names(outcome.subject)[:2] == ["submitted", "started"]
    assert rig.names(outcome.subject)[-1] == "succeeded"


async def test_progress_before_started_is_published_after_it(rig: Rig) -> None:
    async with rig.worker(jobs.steps):
        outcome = await rig.outcome(await rig.submit("steps", {"n": 1, "pause": 0.8}))
    assert rig.names(outcome.subject) == ["submitted", "started", "progressed", "succeeded"]
