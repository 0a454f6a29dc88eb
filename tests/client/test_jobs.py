"""Tests submit, wait, cancel and list of ``Client``."""

from datetime import UTC, date, datetime, timedelta

import pytest

from jobtape import Client, JobState, Options, PayloadInvalid
from jobtape.client import Conflict, Invalid, JobNotSucceeded, NotFound, NotInTime, Unauthorized, WrongAddress
from tests.broker.proxy import Proxy
from tests.client.jobs import Period, add, boom, period
from tests.producer.running_api import serve, without_broker

pytestmark = pytest.mark.anyio

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.usefixtures("worker")
async def test_result_has_the_type_of_the_return_annotation(client: Client) -> None:
    sum_of = await client.submit(add, 1, y=2)
    days = await client.submit(period, first=date(2030, 2, 27), days=3)
    assert await sum_of.result(timeout=20) == 3
    assert await days.result(timeout=20) == Period(first=date(2030, 2, 27), last=date(2030, 3, 1))
    by_name = await client.submit("period.of", {"first": "2030-02-27", "days": 3})
    assert await by_name.result(timeout=20) == {"first": "2030-02-27", "last": "2030-03-01"}
    assert await (await client.submit("add", x=1)).result(timeout=20) == 1


@pytest.mark.usefixtures("worker")
async def test_result_of_failed_job_raises(client: Client) -> None:
    handle = await client.submit(boom, "no way")
    with pytest.raises(JobNotSucceeded, match="failed: ValueError: no way") as raised:
        await handle.result(timeout=20)
    assert (raised.value.job.state, raised.value.job.reason) == (JobState.FAILED, "error")
    again = await client.redrive(handle)
    assert (again.id, again.run) == (handle.id, 2)
    assert (await client.wait(again, timeout=20)).run == 2


async def test_result_without_worker_times_out_and_job_can_be_cancelled(client: Client) -> None:
    handle = await client.submit(add, x=1)
    with pytest.raises(NotInTime, match="it is queued: wait for it again") as raised:
        await handle.result(timeout=0.3)
    assert isinstance(raised.value, TimeoutError)
    assert (await handle.cancel()).id == handle.id
    assert (await handle.wait(timeout=20)).state is JobState.CANCELLED
    assert (await client.get(handle)).state is JobState.CANCELLED


async def test_options_apply_to_one_submission(client: Client) -> None:
    due = datetime.now(UTC) + timedelta(minutes=5)
    options = Options(run_at=due, labels={"customer": "42"}, correlation_id="c-1", max_attempts=3, idempotency_key="k")
    handle = await client.submit_with(options, add, x=1)
    assert (await client.submit_with(options, add, x=1)).id == handle.id
    job = await client.get(handle)
    assert (job.state, job.run_at, job.labels) == (JobState.SCHEDULED, due, {"customer": "42"})
    assert (job.correlation_id, job.max_attempts, job.payload) == ("c-1", 3, {"x": 1, "y": 0})


async def test_list_reads_all_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobtape.client.client.PAGE", 2)
    ids = [(await client.submit_with(Options(labels={"n": "5"}), add, x=n)).id for n in range(5)]
    await client.submit(add, x=9)
    assert (await client.get(ids[-1])).id == ids[-1], "the view has all of them"
    found = [job.id async for job in client.list(labels={"n": "5"}, types=add, states=["queued", JobState.RUNNING])]
    assert found == ids[::-1]
    assert [job.id async for job in client.list(labels={"n": "5"}, limit=3)] == ids[:1:-1]
    assert [job.id async for job in client.list(payload={"x": 3, "y": "0"})] == [ids[3]]
    later = datetime.now(UTC) + timedelta(minutes=5)
    assert [job.id async for job in client.list(since=later)] == []


async def test_refusals_raise_their_errors(client: Client, network: Proxy) -> None:
    with pytest.raises(PayloadInvalid):
        await client.submit(add, x="one")
    with pytest.raises(PayloadInvalid, match="NaN"):
        await client.submit("add", x=float("nan"))
    with pytest.raises(ValueError, match="not a job id"):
        await client.get("../metrics")
    assert network.seen == 0, "nothing was sent"
    with pytest.raises(Invalid, match=r"known: add, .*boom") as unknown:
        await client.submit("nope", {})
    assert (unknown.value.status, unknown.value.kind) == (422, "unknown-job-type")
    with pytest.raises(Invalid) as payload:
        await client.submit("add", {"x": "one", "z": 1})
    assert [fault["pointer"] for fault in payload.value.errors] == ["/payload/x", "/payload/z"]
    with pytest.raises(NotFound, match=NOBODY):
        await client.wait(NOBODY, timeout=1)
    handle = await client.submit(add, x=1)
    with pytest.raises(Conflict) as conflict:
        await client.redrive(handle)
    assert conflict.value.kind == "job-not-final"
    async with Client(f"{network.url}/elsewhere") as lost:
        with pytest.raises(NotFound, match="there is nothing at /elsewhere"):
            await lost.get(NOBODY)


def test_wrong_url_is_refused() -> None:
    for url in ("127.0.0.1:8000", "http://[::1", "ftp://host"):
        with pytest.raises(WrongAddress, match="JOBTAPE_URL"):
            Client(url)


async def test_key_is_sent(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobtape.app import create_app

    secured = create_app(without_broker(sqlite_url, api_key="a-key-for-tests"), [add])
    async with serve(secured) as port:
        monkeypatch.setenv("JOBTAPE_URL", f"http://127.0.0.1:{port}/")
        async with Client() as without:
            with pytest.raises(Unauthorized, match="JOBTAPE_API_KEY"):
                await without.submit(add, x=1)
        monkeypatch.setenv("JOBTAPE_API_KEY", "a-key-for-tests")
        async with Client() as client:
            with pytest.raises(Invalid):
                await client.submit("nope", {})
