"""Jobs whose follow-ups need each other's keys end with a reason, with a real projector and a real worker."""

import asyncio
from typing import Any, Final

import pytest

from jobtape import Context, Flow, Unique, job, step
from jobtape.consumer.projector.dispatch.flows import deadlocks
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.flows import flow_ended, jobs_of, put_job
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

_running: set[str] = set()
_go_on: dict[str, asyncio.Event] = {}


@job("keyed", ordering_key="key")
async def keyed(key: str, ctx: Context, needs: str | None = None, within_flow: bool = False) -> Any:
    if needs is None:
        return key
    _running.add(key)
    await _go_on["both"].wait()
    if not within_flow:
        return ctx.then(keyed, key=needs)
    inner = Flow()
    inner.add(keyed, key=needs, node="same")
    return ctx.then(merge, {"inner": step("jobtape.flow", inner.body())})


@job("single", unique=Unique(by=["key"], conflict="replace"))
async def single(key: str, ctx: Context, needs: str | None = None) -> Any:
    if needs is None:
        return key
    _running.add(key)
    await _go_on["both"].wait()
    return ctx.then(single, key=needs)


@job("merge")
async def merge(results: dict[str, Any]) -> Any:
    return results


TYPES: Final = (keyed, single, merge)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    _go_on["both"] = asyncio.Event()
    _running.clear()
    monkeypatch.setattr(deadlocks, "EVERY", 0.2)


async def test_one_follow_up_fails_of_jobs_that_wait_for_each_other(rig: Rig, store: Store) -> None:
    """Of two with ordering keys, of three through a flow, of two with unique keys. Others with the keys run then."""
    circles: list[list[str]] = []
    async with rig.projector(store), rig.worker(*TYPES, concurrency=10):
        for job_type, keys, more in (
            (keyed, ("a", "b"), {}),
            (keyed, ("c", "d", "e"), {"within_flow": True}),
            (single, ("x", "y"), {}),
        ):
            following = [*keys[1:], keys[0]]
            circles.append(
                [
                    await put_job(rig, job_type, TYPES, key=key, needs=needs, **more)
                    for key, needs in zip(keys, following, strict=True)
                ]
            )
        alone = await put_job(rig, keyed, TYPES, key="f", needs="g")
        await eventually(lambda: len(_running) == 8, what="all run and have their keys")
        _go_on["both"].set()
        behind = await put_job(rig, keyed, TYPES, key="a")
        for circle in circles:
            ended = [await flow_ended(store, job_id) for job_id in circle]
            assert sorted(job.state for job in ended) == [JobState.FAILED, *[JobState.SUCCEEDED] * (len(circle) - 1)]
            (failed,) = [job for each in ended for job in failed_below(store, each)]
            assert failed.error is not None and failed.error.type == "Deadlock" and failed.reason == "payload_invalid"
            assert all(job_id in failed.error.message for job_id in circle)
        assert (await flow_ended(store, alone)).result == "g"
        assert (await flow_ended(store, behind)).result == "a"


def failed_below(store: Store, job: Job) -> list[Job]:
    """Return the jobs below a job that have failed and have no jobs below them."""
    below = jobs_of(store, job.id)
    found = [each for each in below if each.state is JobState.FAILED and not jobs_of(store, each.id)]
    return found + [deeper for each in below for deeper in failed_below(store, each)]
