"""A job and its events as clients see them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from jobtape.producer.http.problems import ProblemDetails
from jobtape.schemas import plainjson
from jobtape.schemas.job import ErrorInfo, Job, JobState, Progress
from jobtape.schemas.upcast import newest
from jobtape.view.store import HistoryRow


class JobOut(BaseModel):
    """What is known of a job."""

    id: str
    type: str
    state: JobState
    payload: dict[str, Any] | None = Field(description="As it was submitted.")
    payload_version: int | None = Field(description="Which version of the job type's payload it is; from 1.")
    result: Any
    error: ErrorInfo | None
    reason: str | None = Field(description="Why the last attempt failed: `error`, `timeout`, `crash_loop`, `lost`, …")
    progress: Progress | None
    queue: str | None
    labels: dict[str, str] | None
    run: int = Field(description="From 1, up with each redrive.")
    attempt: int = Field(description="From 1 in each run.")
    max_attempts: int | None
    submitted_at: datetime | None
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    correlation_id: str | None
    reply_to: str | None
    imported: bool = Field(description="Its last event came from another tape; redrive it to run it here.")
    cursor: int | None = Field(description="Where its last event stands on the tape; null until that is known.")


class JobPage(BaseModel):
    """Jobs, newest first; ``next`` is the ``cursor`` of the next page, null on the last."""

    items: list[JobOut]
    next: str | None


class EventOut(BaseModel, extra="allow"):
    """A CloudEvent (1.0, structured JSON) with two more attributes."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: dict[str, Any]
    cursor: int = Field(description="Where it stands on the tape.")
    accepted: bool = Field(description="Whether it changed the job; a repeated or late event does not.")


class EventPage(BaseModel):
    """Events in the tape's order; ``next`` is the ``after`` of the next page, null on the last."""

    items: list[EventOut]
    next: int | None


class BatchItemOut(BaseModel):
    """``id`` unless it was refused, ``problem`` when it was; ``unknown``: without a confirm, perhaps accepted."""

    status: Literal["accepted", "refused", "unknown"]
    id: str | None = None
    problem: ProblemDetails | None = None


class BatchOut(BaseModel):
    """How many of each, and each item in the order given."""

    accepted: int
    refused: int
    unknown: int
    items: list[BatchItemOut]


_FIELDS = tuple(JobOut.model_fields)


def job_out(job: Job) -> dict[str, Any]:
    """The values of ``JobOut``, to be made into JSON."""
    values = {name: getattr(job, name) for name in _FIELDS}
    values["cursor"] = job.cursor or None
    return values


def event_out(row: HistoryRow) -> dict[str, Any]:
    """The values of ``EventOut``: the event in the newest version, whichever was written, with its cursor."""
    return {**newest(plainjson.loads(row.event.encode())), "cursor": row.cursor, "accepted": row.accepted}
