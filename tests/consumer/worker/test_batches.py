"""A batch handler gets many jobs in one call, and each of them has an outcome of its own."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from jobtape import Batch, Context, JobType, job
from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Failure, Success
from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.events import Failed, Succeeded
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.execution.retry import RetryPolicy
from jobtape.schemas.fold import evolve
from jobtape.schemas.topology import CANCEL_KEY
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

LONG = 30.0
"""Seconds. A batch that begins before that is full."""


class Page(BaseModel):
    url: str
    depth: int = 1


async def outcomes(rig: Rig, ids: Sequence[str]) -> list[Any]:
    """Return the result of each job, or the reason for which it failed."""
    found = [await rig.outcome(job_id) for job_id in ids]
    return [
        each.data.result if isinstance(each, Succeeded) else each.data.reason if isinstance(each, Failed) else each.name
        for each in found
    ]


async def cancel(rig: Rig, job_id: str) -> None:
    (event, *_) = await eventually(lambda: rig.of(job_id))
    request = cancelled(evolve(None, event), source=rig.topology.source, time=event.time)
    await rig.publisher.publish(request, [CANCEL_KEY])


def indexer(calls: list[list[str]], batch: Batch, kind: str) -> JobType:
    """Return a batch handler that records its calls."""
    if kind == "async def":

        @job("index", batch=batch)
        async def index(pages: list[Page]) -> list[str]:
            calls.append([page.url for page in pages])
            return [f"{page.url} {page.depth}" for page in pages]

        return index

    @job("index", batch=batch)
    def index_in_thread(pages: list[Page]) -> list[str]:
        calls.append([page.url for page in pages])
        return [f"{page.url} {page.depth}" for page in pages]

    return index_in_thread


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_full_batch_is_one_call(rig: Rig, kind: str) -> None:
    calls: list[list[str]] = []
    ids = [await rig.submit("index", {"url": str(n)}) for n in range(6)]
    async with rig.worker(indexer(calls, Batch(3, within=LONG), kind), concurrency=10):
        assert await outcomes(rig, ids) == [f"{n} 1" for n in range(6)]
    assert sorted(map(len, calls)) == [3, 3]
    assert sorted(url for call in calls for url in call) == [str(n) for n in range(6)]


async def test_batch_begins_some_time_after_its_first_job(rig: Rig) -> None:
    calls: list[list[str]] = []
    async with rig.worker(indexer(calls, Batch(100, within=0.2), "async def")):
        assert await outcomes(rig, [await rig.submit("index", {"url": "a"})]) == ["a 1"]
    assert calls == [["a"]]


async def test_each_job_has_its_own_outcome(rig: Rig) -> None:
    """A result, an exception in the place of a result, and a payload that does not fit."""

    @job("half", batch=Batch(4, within=LONG))
    async def half(n: list[int]) -> list[int | ValueError]:
        return [ValueError("odd") if each % 2 else each // 2 for each in n]

    ids = [await rig.submit("half", {"n": n}) for n in (4, 5, "six", 8)]
    async with rig.worker(half):
        assert await outcomes(rig, ids) == [2, "error", "payload_invalid", 4]


async def test_exception_of_the_handler_fails_all_jobs(rig: Rig) -> None:
    attempts: list[int] = []

    @job("broken", batch=Batch(2, within=LONG), retry=RetryPolicy(max_attempts=2, first=0.01))
    def broken(ctx: list[Context]) -> None:
        attempts.extend(each.attempt for each in ctx)
        raise ValueError("all of them")

    ids = [await rig.submit("broken", max_attempts=1) for _ in range(2)]
    async with rig.worker(broken):
        assert await outcomes(rig, ids) == ["error", "error"]
    assert attempts == [1, 1]


async def test_wrong_number_of_results_fails_all_jobs(rig: Rig) -> None:
    @job("few", batch=Batch(2, within=LONG))
    async def few(n: list[int]) -> list[int]:
        return n[:1]

    ids = [await rig.submit("few", {"n": n}) for n in range(2)]
    async with rig.worker(few):
        assert await outcomes(rig, ids) == ["result_invalid", "result_invalid"]


async def test_contexts_are_those_of_the_jobs(rig: Rig) -> None:
    @job("who", batch=Batch(2, within=LONG))
    async def who(ctx: list[Context], n: list[int]) -> list[str]:
        return [f"{each.job_id} {number}" for each, number in zip(ctx, n, strict=True)]

    ids = [await rig.submit("who", {"n": n}) for n in range(2)]
    async with rig.worker(who):
        assert await outcomes(rig, ids) == [f"{job_id} {n}" for n, job_id in enumerate(ids)]


async def test_cancelling_one_job_leaves_the_others(rig: Rig) -> None:
    release, began = asyncio.Event(), asyncio.Event()
    here = asyncio.get_running_loop()

    @job("wait", batch=Batch(2, within=LONG))
    async def wait(n: list[int]) -> list[int]:
        here.call_soon_threadsafe(began.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(release.wait(), here))
        return n

    ids = [await rig.submit("wait", {"n": n}) for n in range(2)]
    async with rig.worker(wait):
        await began.wait()
        await cancel(rig, ids[0])
        await eventually(lambda: rig.names(ids[0])[-1] == "cancelled")
        release.set()
        assert await outcomes(rig, ids) == ["cancelled", 1]


async def test_job_that_is_cancelled_before_its_batch_begins_is_not_in_it(rig: Rig) -> None:
    calls: list[list[str]] = []
    async with rig.worker(indexer(calls, Batch(2, within=LONG), "async def")):
        first = await rig.submit("index", {"url": "a"})
        await eventually(lambda: "started" in rig.names(first))
        await cancel(rig, first)
        await eventually(lambda: rig.names(first)[-1] == "cancelled")
        ids = [await rig.submit("index", {"url": url}) for url in ("b", "c")]
        assert await outcomes(rig, ids) == ["b 1", "c 1"]
    assert [sorted(call) for call in calls] == [["b", "c"]]


async def test_all_jobs_time_out_with_the_call(rig: Rig) -> None:
    @job("forever", batch=Batch(2, within=LONG), timeout=0.3)
    async def forever(n: list[int]) -> None:
        await asyncio.Event().wait()

    ids = [await rig.submit("forever", {"n": n}, timeout=0.3) for n in range(2)]
    async with rig.worker(forever):
        assert await outcomes(rig, ids) == ["timeout", "timeout"]


async def test_batch_is_full_when_it_has_every_slot(rig: Rig) -> None:
    calls: list[list[str]] = []
    ids = [await rig.submit("index", {"url": str(n)}) for n in range(6)]
    async with rig.worker(indexer(calls, Batch(100, within=LONG), "def"), concurrency=2):
        await outcomes(rig, ids)
    assert list(map(len, calls)) == [2, 2, 2]


def test_handler_that_runs_one_job_gets_lists_of_one() -> None:
    """As in a shadow run, and in the process of a suspect."""

    @job("half", batch=Batch(4))
    def half(n: list[int]) -> list[int | ValueError]:
        return [ValueError("odd") if each % 2 else each // 2 for each in n]

    def outcome(n: int) -> object:
        return Call(half, {"n": n}, None, Context("id", "half", 1, 1, logging.getLogger(), print), 1000).run()

    assert outcome(4) == Success(2)
    failed = outcome(5)
    assert isinstance(failed, Failure)
    assert failed.error.type == "ValueError"


def one(n: int) -> list[int]:
    return [n]


def default(n: list[int] = []) -> list[int]:  # noqa: B006
    return n


def one_result(n: list[int]) -> int:
    return len(n)


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (one, {"batch": Batch(2)}, "annotate it list"),
        (default, {"batch": Batch(2)}, "has a default"),
        (one_result, {"batch": Batch(2)}, "returns a result for each job"),
        (one, {"batch": Batch(1)}, "from 2 to 1000"),
        (one, {"batch": Batch(2, within=0)}, "within is a number of seconds"),
        (one, {"batch": Batch(2), "isolate": True}, "remove batch="),
    ],
)
def test_wrong_batch_handler_is_refused(function: Callable[..., Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(JobTypeInvalid, match=reason):
        job("wrong", **options)(function)


def test_payload_and_result_are_those_of_one_job() -> None:
    @job("index", batch=Batch(2))
    async def index(pages: list[Page]) -> list[str | ValueError]:
        return [page.url for page in pages]

    assert index.payload(Page(url="a")) == {"url": "a", "depth": 1}
    schemas = index.json_schema()
    assert set(schemas["payload"]["properties"]) == {"url", "depth"}
    assert schemas["result"]["type"] == "string"
