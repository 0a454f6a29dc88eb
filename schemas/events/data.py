"""The data of each event, and the words in it."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobtape.schemas import ids
from jobtape.schemas.job import ErrorInfo, JobTypeName, Order, StorableText, Utc

# It is part of event ids, which have at most 255 characters.
ExecutionId = Annotated[str, Field(min_length=1, max_length=64)]
SignalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
Dropped = Literal["expired", "maxlen"]
"""Why the broker dropped waiting work, in RabbitMQ's words."""
DeferReason = Literal["unknown_type", "queue_full", "paused"] | Dropped
"""Why work was deferred: a worker does not know the job type or its version, the queue refused it, the job type is
paused, or the broker dropped it."""
PlacementReason = Literal["due", "lost", "given_up"]
"""Why work is placed: its time has come, the broker lost it, or the broker gave it up after too many deliveries."""
CancelReason = Literal["duplicate", "replaced", "debounced"]
"""Why Jobtape itself cancelled a job: an open job has its unique key, a later one replaced it, or a
later one with its debounce key came.
"""
Reason = Literal[
    "error",
    "timeout",
    "crashed",
    "crash_loop",
    "unknown_type",
    "payload_invalid",
    "result_invalid",
    "result_too_large",
    "lost",
    "node_failed",
]
FLOW_EXECUTION: Final = "flow"
"""The execution in the events by which the projector ends flows, and jobs that have follow-ups."""
EndReason = Literal[Reason, CancelReason]
"""Why an attempt failed, or why Jobtape itself cancelled a run."""


class EventData(BaseModel):
    """Fields of every event. Readers ignore fields that a later minor version adds."""

    model_config = ConfigDict(frozen=True)

    job_type: JobTypeName
    run: int = Field(ge=1, lt=2**31)
    attempt: int = Field(ge=1, lt=2**31)


class SubmittedData(EventData):
    """The order."""

    order: Order


class StartedData(EventData):
    """The worker and the execution."""

    execution: ExecutionId
    worker: str


class ProgressedData(EventData):
    """The progress. ``n`` counts the reports of one execution."""

    execution: ExecutionId
    n: int = Field(ge=1, lt=2**31)
    fraction: float = Field(ge=0, le=1)
    message: StorableText | None = None


class ContinuedData(EventData):
    """What follows, as a ``RecordedFlow``. ``duration`` is in seconds, from ``started_at``."""

    execution: ExecutionId
    worker: str
    started_at: Utc
    duration: float = Field(ge=0, allow_inf_nan=False)
    follow_ups: dict[str, Any]


class SignalledData(EventData):
    """The signal. ``payload``: None if the time was over before it came, which ``timed_out`` says too."""

    signal: SignalName
    payload: dict[str, Any] | None = None
    timed_out: bool = False


class RetryingData(EventData):
    """The error of the attempt, and the time of the next one."""

    execution: ExecutionId
    error: ErrorInfo
    reason: Reason
    next_at: Utc


class SucceededData(EventData):
    """The result. ``duration`` is in seconds, from ``started_at``."""

    execution: ExecutionId
    worker: str
    result: Any = None
    started_at: Utc
    duration: float = Field(ge=0, allow_inf_nan=False)


class FailedData(EventData):
    """Why the run failed. ``execution`` is None when no execution ended it (given up, lost)."""

    error: ErrorInfo
    reason: Reason
    execution: ExecutionId | None = None
    worker: str | None = None
    started_at: Utc | None = None
    duration: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class CancelledData(EventData):
    """``reason``: None if somebody asked for it. ``duplicate_of``: the job that is to run instead of this one."""

    reason: CancelReason | None = None
    duplicate_of: str | None = Field(default=None, pattern=ids.UUID_PATTERN)


class RedrivenData(EventData):
    """Only the common fields. ``run`` is the new run; the ``placed`` that follows places its work."""


class ReleasedData(EventData):
    """Only the common fields."""


class PlacedData(EventData):
    """The placement of the work: the ``n``-th of this attempt, counting the submission. ``why``: its time has come, or
    the work was lost, or the broker gave it up. ``lost_execution``: the execution that was shown as running, and is
    considered dead. ``deferred`` and ``deferred_since``: why the work was deferred last, and since when. ``fence``: of
    a job with gates, a number that is higher than that of every job that had the slot before.
    """

    n: int = Field(ge=1, lt=2**31)
    why: PlacementReason
    lost_execution: ExecutionId | None = None
    deferred: DeferReason | None = None
    deferred_since: Utc | None = None
    fence: int | None = None
    order: Order


class DeferredData(EventData):
    """The ``n``-th placement of this attempt could not be run and is deferred until ``until``. ``since``: when it was
    deferred first for this reason.
    """

    n: int = Field(ge=1, lt=2**31)
    reason: DeferReason
    until: Utc
    since: Utc
