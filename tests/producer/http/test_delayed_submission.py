"""Delayed jobs and their number of attempts: accepted and refused submissions."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import jobtape
from jobtape import RetryPolicy, job
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.events import Submitted
from jobtape.schemas.job import LONGEST_DELAY, JobState
from jobtape.settings import Settings
from tests.consumer import jobs as handlers
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem, running_producer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

DAY = 86_400
ADD: dict[str, Any] = {"type": "add", "payload": {"x": 1, "y": 1}}


@job("patient", retry=RetryPolicy(max_attempts=4, first=60))
def patient(x: int = 0) -> None:
    """A job type with four attempts."""


async def accepted(served: Api, **more: Any) -> dict[str, Any]:
    answer = await served.client.post("/jobs", json=ADD | more)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def in_(**wait: float) -> str:
    return (datetime.now(UTC) + timedelta(**wait)).isoformat()


async def order(rig: Rig, job_id: str) -> Any:
    (event,) = await eventually(lambda: rig.of(job_id))
    assert isinstance(event, Submitted)
    return event.data.order


async def test_delayed_job_runs_when_due(projected: Api, rig: Rig) -> None:
    before = datetime.now(UTC)
    made = await accepted(projected, delay=0.75)
    assert made["state"] == "scheduled"
    due = datetime.fromisoformat(made["run_at"])
    assert timedelta(seconds=0.75) <= due - before < timedelta(seconds=5)
    assert (await order(rig, made["id"])).run_at == due
    async with rig.worker(handlers.add):
        outcome = await rig.outcome(made["id"])
    assert outcome.data.started_at >= due, "never early"
    shown = await eventually(lambda: _state(projected, made["id"], "succeeded"))
    assert (shown["run_at"], shown["attempt"]) == (made["run_at"], 1)


async def _state(served: Api, job_id: str, state: str) -> dict[str, Any] | None:
    shown: dict[str, Any] = (await served.client.get(f"/jobs/{job_id}")).json()
    return shown if shown["state"] == state else None


async def test_scheduled_job_is_not_on_its_queue(projected: Api, rig: Rig) -> None:
    made = await accepted(projected, delay=3600)
    shown = (await projected.client.get(f"/jobs/{made['id']}")).json()
    assert (shown["state"], shown["run_at"], shown["started_at"]) == ("scheduled", made["run_at"], None)
    assert await rig.depth() == 0
    assert [item["id"] for item in (await projected.client.get("/jobs?state=scheduled")).json()["items"]] == [
        made["id"]
    ]


async def test_run_at_accepts_any_offset(served: Api) -> None:
    for offset in (timedelta(0), timedelta(hours=5, minutes=30), -timedelta(hours=9)):
        wanted = (datetime.now(UTC) + timedelta(hours=1)).astimezone(timezone(offset))
        made = await accepted(served, run_at=wanted.isoformat())
        assert datetime.fromisoformat(made["run_at"]) == wanted
        assert made["run_at"].endswith("Z")
        assert made["state"] == "scheduled"


async def test_past_time_means_now(served: Api, rig: Rig) -> None:
    gone: list[dict[str, Any]] = [
        {"run_at": "1970-01-01T00:00:00Z"},
        {"run_at": "0001-01-01t00:00:00z"},
        {"run_at": in_(seconds=-1)},
        {"delay": 0},
        {"delay": None, "run_at": None},
    ]
    for when in gone:
        assert (await accepted(served, **when))["state"] == "queued", when
    await eventually(rig.depth_is(len(gone)), what="the jobs are on their work queue")


async def test_longest_delay_is_ten_years(served: Api) -> None:
    latest = (datetime.now(UTC) + timedelta(days=3650)).isoformat()
    for when in ({"delay": LONGEST_DELAY}, {"delay": 365 * DAY}, {"run_at": latest}):
        assert (await accepted(served, **when))["state"] == "scheduled"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # fields, pointer and text of the fault
    ({"delay": 5, "run_at": "2030-01-01T00:00:00Z"}, "", "delay and run_at both say when it is due: give one of them"),
    ({"delay": 5, "run_at": "1970-01-01T00:00:00Z"}, "", "give one of them"),
    ({"delay": LONGEST_DELAY + 1}, "/delay", "less than or equal to 315360000"),
    ({"delay": 1e300}, "/delay", "less than or equal to 315360000"),
    ({"delay": -0.001}, "/delay", "greater than or equal to 0"),
    ({"delay": "5"}, "/delay", "valid number"),
    ({"delay": "PT5S"}, "/delay", "valid number"),
    ({"delay": True}, "/delay", "valid number"),
    ({"delay": [5]}, "/delay", "valid number"),
    ({"run_at": in_(days=3651)}, "/run_at", "ten years ahead at most"),
    ({"run_at": "9999-12-31T23:59:59Z"}, "/run_at", "ten years ahead at most"),
    ({"run_at": "2030-01-01T00:00:00"}, "/run_at", "timezone"),
    ({"run_at": "2030-01-01"}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": 1893456000}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": 1893456000.5}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": "1893456000"}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": True}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": "tomorrow"}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": "Tuesday"}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": "2030-01-01T"}, "/run_at", "valid datetime"),
    ({"run_at": "2030-01-01 00:00:00Z"}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": ""}, "/run_at", "an RFC 3339 text with an offset"),
    ({"run_at": "2030-02-30T00:00:00Z"}, "/run_at", "valid datetime"),
    ({"run_at": "0001-01-01T00:00:00+14:00"}, "/run_at", "out of range in UTC"),
    ({"max_attempts": 0}, "/max_attempts", "greater than or equal to 1"),
    ({"max_attempts": 1001}, "/max_attempts", "less than or equal to 1000"),
    ({"max_attempts": 2.5}, "/max_attempts", "valid integer"),
    ({"max_attempts": "3"}, "/max_attempts", "valid integer"),
    ({"max_attempts": True}, "/max_attempts", "valid integer"),
]


async def test_invalid_times_and_attempts_are_refused(served: Api, rig: Rig) -> None:
    """Each is refused alone, and in a batch beside a valid one."""
    good = []
    for fields, pointer, text in REFUSED:
        body = problem(await served.client.post("/jobs", json=ADD | fields), 422, "invalid-submission")
        (fault,) = body["errors"]
        assert (fault["pointer"], text in fault["detail"], text in body["detail"]) == (pointer, True, True), body
        assert "Value error" not in json.dumps(body)
        batch = (await served.client.post("/jobs/batch", json=[ADD | fields, ADD])).json()
        assert [item["status"] for item in batch["items"]] == ["refused", "accepted"], batch
        assert text in batch["items"][0]["problem"]["detail"]
        good.append(batch["items"][1]["id"])
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        raw = b'{"type": "add", "payload": {"x": 1}, "delay": %s}' % number
        answer = await served.client.post("/jobs", content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
    await rig.read_to_end()
    assert [event.subject for event in rig.events] == good, "nothing else was published"


async def test_max_attempts_of_job_or_its_type(settings: Settings, rig: Rig) -> None:
    async with api(settings, add, patient) as served:
        for more, expected in (
            ({"type": "add", "payload": {"x": 1}}, 1),
            ({"type": "add", "payload": {"x": 1}, "max_attempts": 3}, 3),
            ({"type": "patient", "payload": {}}, 4),
            ({"type": "patient", "payload": {}, "max_attempts": None}, 4),
            ({"type": "patient", "payload": {}, "max_attempts": 1}, 1),
            ({"type": "patient", "payload": {}, "max_attempts": 1000}, 1000),
        ):
            made = (await served.client.post("/jobs", json=more)).json()
            assert made["max_attempts"] == expected
            assert (await order(rig, made["id"])).max_attempts == expected


async def test_delayed_submission_in_process(settings: Settings, rig: Rig) -> None:
    async with jobtape.lifespan(job_types=[add, patient], settings=settings):
        await eventually(lambda: running_producer().watch.tape_fault is None)
        options = jobtape.Options(delay=60, max_attempts=7)
        made = await add.submit_with(options, 1)
        assert (made.state, made.max_attempts) == (JobState.SCHEDULED, 7)
        assert made.run_at is not None and made.submitted_at is not None
        assert timedelta(seconds=55) < made.run_at - made.submitted_at <= timedelta(seconds=60)
        when = datetime.now(timezone(timedelta(hours=2))) + timedelta(days=1)
        assert (await patient.submit_with(jobtape.Options(run_at=when))).run_at == when
        for wrong, text in (
            (jobtape.Options(delay=5, run_at=when), "give one of them"),
            (jobtape.Options(run_at=datetime(2030, 1, 1)), "timezone"),  # noqa: DTZ001 - without an offset
            (jobtape.Options(delay=-1), "greater than or equal to 0"),
            (jobtape.Options(run_at=1893456000), "RFC 3339"),  # type: ignore[arg-type]
            (jobtape.Options(run_at=when + timedelta(days=3651)), "ten years ahead at most"),
        ):
            with pytest.raises(SubmissionInvalid, match=text) as refused:
                await add.submit_with(wrong, 1)
            assert "Value error" not in str(refused.value)
