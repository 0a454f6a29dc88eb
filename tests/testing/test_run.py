"""``run``: one handler as in a worker."""

import asyncio
import time
from datetime import date
from typing import Any

import pytest

from jobtape import Context, PayloadInvalid, Retry, RetryPolicy, job
from jobtape.schemas.flows.follow_ups import FollowUps
from jobtape.testing import HandlerFailed, run
from tests.testing import jobs


@job("remind")
def remind(due: date, ctx: Context) -> dict[str, Any]:
    return {"due": due, "key": ctx.idempotency_key}


@job("again", retry=RetryPolicy(max_attempts=5))
def again(ctx: Context) -> None:
    raise Retry(delay=7.0)


@job("unwritable")
def unwritable() -> Any:
    return object()


@job("endless", timeout=0.05)
def endless() -> None:
    time.sleep(5)  # longer than the test waits


@job("apart")
async def apart() -> None:
    raise asyncio.CancelledError


def test_run_returns_result_of_sync_and_async_handler() -> None:
    assert run(jobs.add, 1, y=2) == 3
    assert run(jobs.greet, name="Ada") == "Hello, Ada (1)"


@pytest.mark.anyio
async def test_run_works_beside_running_loop() -> None:
    assert run(jobs.greet, name="Ada") == "Hello, Ada (1)"


def test_run_converts_payload_and_result_to_json_and_back() -> None:
    result = run(remind, due=date(2030, 1, 31))
    assert result["due"] == "2030-01-31"
    assert result["key"].endswith("/1")


def test_run_refuses_payload_that_does_not_fit() -> None:
    with pytest.raises(PayloadInvalid):
        run(jobs.add, x="many", y=2)


def test_run_raises_what_the_worker_would_record() -> None:
    with pytest.raises(HandlerFailed, match="never") as raised:
        run(jobs.broken)
    assert (raised.value.reason, raised.value.error.type, raised.value.retry_after) == ("error", "Fail", "never")
    with pytest.raises(HandlerFailed) as raised:
        run(again)
    assert raised.value.retry_after == 7.0
    with pytest.raises(HandlerFailed) as raised:
        run(unwritable)
    assert raised.value.reason == "result_invalid"
    with pytest.raises(HandlerFailed) as raised:
        run(endless)
    assert raised.value.reason == "timeout"
    with pytest.raises(HandlerFailed, match="CancelledError"):
        run(apart)


def test_run_gives_batch_handler_one_job_and_runs_isolated_one_here() -> None:
    assert run(jobs.many, n=4) == 8
    assert run(jobs.alone, n=4) == 5


def test_run_returns_follow_ups() -> None:
    found = run(jobs.fan, n=2)
    assert isinstance(found, FollowUps)
    assert set(found.body["nodes"]) == {"0", "1", "then"}
