"""Jobs and events as the REST API returns them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic_core import to_json

from jobtape.producer.http.problems import ProblemDetails
from jobtape.schemas import plainjson
from jobtape.schemas.events.upcast import newest
from jobtape.schemas.job import ErrorInfo, Job, JobState, Progress
from jobtape.schemas.job_types.secrets import without_secrets
from jobtape.schemas.queueing.lanes import Lane
from jobtape.view.store import HistoryRow

POLL_AFTER: Final = 1
"""Seconds that a client should wait before it polls a job that was just accepted or changed."""


class SignalOut(BaseModel):
    """A signal of a job. ``payload`` is null if its time was over before it came: then it is ``timed_out``."""

    payload: dict[str, Any] | None
    timed_out: bool


class JobOut(BaseModel):
    """A job and its current status."""

    id: str = Field(description="A UUID.")
    type: str = Field(description="The job type.")
    state: JobState = Field(
        description="`scheduled`, `held`, `queued`, `running`, `retrying`; ended: `succeeded`, `failed`, `cancelled`."
    )
    payload: dict[str, Any] | None = Field(description="As it was submitted.")
    payload_version: int | None = Field(description="The version of the payload's schema, from 1.")
    result: Any = Field(description="What the handler returned. Null until the job has succeeded.")
    error: ErrorInfo | None = Field(
        description="The exception of the last failed attempt: `type`, `message`, `traceback`. Null after a success."
    )
    failure: str | None = Field(description="The id of the group of `error`: see `GET /failures`.")
    reason: str | None = Field(
        description="Why the last attempt failed (`error`, `timeout`, …), the work was deferred (`queue_full`, …), the "
        "job waits for its follow-ups (`follow_ups`), or was cancelled without a request (`duplicate`, `replaced`, "
        "`debounced`)."
    )
    duplicate_of: str | None = Field(
        description="Of a job that was cancelled because of its unique or debounce key: the job that runs instead."
    )
    progress: Progress | None = Field(description="What the handler reported: `fraction` from 0 to 1, and `message`.")
    queue: str | None = Field(description="The work queue. A lane other than `normal` is a part of its name.")
    lane: Lane | None = Field(description="The lane of the queue: `high`, `normal` or `low`.")
    labels: dict[str, str] | None = Field(description="The labels of the submission. Lists can be filtered by them.")
    ordering_key: str | None = Field(description="Jobs with the same key run one after the other.")
    waits_for: list[str] = Field(
        description="Of a `held` job: its keys and limits, of which one is not free, or whose time has not come. Or "
        "its signals and follow-ups."
    )
    holds_key: bool = Field(description="Whether the job has failed and keeps its ordering key until it is released.")
    run: int = Field(description="Starts at 1. Each redrive adds 1.")
    attempt: int = Field(description="Starts at 1 in each run. Each retry adds 1.")
    max_attempts: int | None = Field(description="How many attempts a run has.")
    submitted_at: datetime | None = Field(description="When the job was accepted.")
    run_at: datetime | None = Field(description="When the job, its new run, or its next attempt is or was due.")
    started_at: datetime | None = Field(description="When the last execution began.")
    finished_at: datetime | None = Field(description="When the run ended. Null while it is open.")
    correlation_id: str | None = Field(description="An id of yours for everything that belongs together.")
    reply_to: str | None = Field(description="The final event is also published with the key `reply.<reply_to>`.")
    flow: str | None = Field(description="The flow that the job belongs to, or the job that it follows.")
    node: str | None = Field(description="The name of its node there.")
    item: int | None = Field(description="Of a mapped node: which item the job is for, from 0.")
    follow_up_jobs: int | None = Field(
        description="How many jobs follow it in this run, if its handler has named some: see `GET /jobs/{id}/nodes`."
    )
    signals: dict[str, SignalOut] | None = Field(description="The signals that were sent to this run, by name.")
    imported: bool = Field(description="Whether its last event came from another tape. Redrive the job to run it here.")
    cursor: int | None = Field(description="The position of its last event on the tape; null until it is known.")


class JobPage(BaseModel):
    """Jobs, newest first. Send ``next`` as ``cursor`` to get the next page; it is null on the last page."""

    items: list[JobOut]
    next: str | None
    scanned: int | None = Field(description="How many jobs a search has examined for this page.")


class EventOut(BaseModel, extra="allow"):
    """A CloudEvent (1.0, structured JSON) with the additional attributes ``cursor`` and ``accepted``."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: dict[str, Any]
    cursor: int = Field(description="Its position on the tape.")
    accepted: bool = Field(description="Whether it changed the job. A repeated or late event does not.")


class EventPage(BaseModel):
    """Events in the order of the tape. Send ``next`` as ``after`` to get the next page; it is null on the last page."""

    items: list[EventOut]
    next: int | None


class BatchItemOut(BaseModel):
    """The outcome of one item: ``id`` of the job, or ``problem`` when it was refused. ``unknown`` means that the broker
    did not confirm: the job may have been accepted.
    """

    status: Literal["accepted", "refused", "unknown"]
    id: str | None = None
    problem: ProblemDetails | None = None


class BatchOut(BaseModel):
    """The number of items with each status, and the outcome of each item in the order of the request."""

    accepted: int
    refused: int
    unknown: int
    items: list[BatchItemOut]


_FIELDS = tuple(JobOut.model_fields)


class PydanticJSONResponse(JSONResponse):
    """A JSON response that pydantic encodes, because it also encodes times and enums."""

    def render(self, content: Any) -> bytes:
        return to_json(content)


def job_out(job: Job) -> dict[str, Any]:
    """Return the fields of ``JobOut``, ready for JSON."""
    values = {name: getattr(job, name, None) for name in _FIELDS}
    values["payload"] = without_secrets(job.payload)
    values["cursor"] = job.cursor or None
    values["ordering_key"] = None if job.gates is None else job.gates.ordering_key
    values["waits_for"] = waits_for(job) if job.state is JobState.HELD else []
    values["follow_up_jobs"] = None if job.follow_ups is None else len(job.follow_ups.get("nodes", {}))
    values["signals"] = None if job.signals is None else {name: _signal(each) for name, each in job.signals.items()}
    values["holds_key"] = job.has_slots and job.final
    return values


def _signal(signal: Mapping[str, Any]) -> dict[str, Any]:
    return {"payload": signal["payload"], "timed_out": signal["timed_out"]}


def waits_for(job: Job) -> list[str]:
    """Return what a held job waits for, as texts for people."""
    if job.follow_ups is None:
        return [] if job.gates is None else job.gates.texts()
    nodes, awaited = job.follow_ups.get("nodes", {}), job.follow_ups.get("signals", {})
    signals = [f"signal {name}" for name in awaited if name not in (job.signals or {})]
    return [*signals, "its follow-up" if len(nodes) == 1 else f"its {len(nodes)} follow-ups"]


def event_out(row: HistoryRow) -> dict[str, Any]:
    """Return the fields of ``EventOut``. An event of an older version is converted to the newest one."""
    return {**newest(plainjson.loads(row.event.encode())), "cursor": row.cursor, "accepted": row.accepted}


def accepted(job: Job, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response 202 with ``job``, ``headers``, and the time after which to poll."""
    return PydanticJSONResponse(job_out(job), 202, {**(headers or {}), "Retry-After": str(POLL_AFTER)})


def mount_path(request: Request) -> str:
    """Return the path under which a proxy or another application serves this one, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def location(request: Request, job: Job) -> dict[str, str]:
    """Return the header with the address of ``job``."""
    return {"Location": f"{mount_path(request)}/jobs/{job.id}"}
