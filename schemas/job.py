"""What a job is: the order that was placed, the states it passes, and what is known of it now."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from jobtape.schemas import plainjson

JOB_TYPE_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,119}$"
# No dots: the delay ladder's bindings count the words of a routing key.
QUEUE_PATTERN: Final = r"^[A-Za-z0-9_\-]{1,64}$"
MAX_LABELS: Final = 32


def _to_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # pydantic turns only ValueErrors into refusals
        raise ValueError("the time is out of range in UTC") from None


Utc = Annotated[AwareDatetime, AfterValidator(_to_utc)]
CarriedText = Annotated[str, BeforeValidator(lambda text: plainjson.carried(text) if isinstance(text, str) else text)]
"""What a handler says in words. Its exception may say anything, and must not make its own event unreadable."""
JobTypeName = Annotated[str, Field(pattern=JOB_TYPE_PATTERN)]
QueueName = Annotated[str, Field(pattern=QUEUE_PATTERN)]


class JobState(StrEnum):
    """Where a job stands. The table of what may follow what is ``fold.TRANSITIONS``."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ENDINGS: Final = frozenset(state.value for state in FINAL)
"""The names of the events that end a run: those of the states they lead to."""


class Order(BaseModel):
    """What was asked for, complete: a worker needs nothing else to do the job. It travels with every event that puts
    a job on a queue. ``payload_version``: which version of the job type's payload it is. ``timeout`` is in seconds;
    ``run_at`` None means at once.
    """

    model_config = ConfigDict(frozen=True)

    type: JobTypeName
    payload: dict[str, Any]
    payload_version: int = Field(default=1, ge=1, lt=2**31)
    queue: QueueName
    labels: dict[str, str] = Field(default_factory=dict)
    correlation_id: str | None = None
    run_at: Utc | None = None
    timeout: float = Field(gt=0, allow_inf_nan=False)
    max_attempts: int = Field(default=1, ge=1, lt=2**31)
    reply_to: str | None = None


class ErrorInfo(BaseModel):
    """Why an attempt failed: the exception's class name, its text, and the (bounded) traceback of the handler."""

    model_config = ConfigDict(frozen=True)

    type: CarriedText
    message: CarriedText
    traceback: CarriedText | None = None


class Progress(BaseModel):
    """How far a handler says it is: ``fraction`` from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    fraction: float = Field(ge=0, le=1)
    message: CarriedText | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What the tape says of one job, up to ``cursor``; made by ``fold.evolve`` alone.

    An event may come before the job's ``submitted`` (two publishers, one stream): until that is read, ``submitted_at``
    is None and what was ordered is not known. ``execution`` (the attempt's latest), ``superseded`` (its earlier
    ones) and ``progress_n`` distinguish a repeated ``started`` or ``progressed`` from a new one;
    ``placed`` counts how often this run's work was put on its queue.
    """

    id: str
    type: str
    state: JobState
    run: int
    attempt: int
    payload: dict[str, Any] | None = None
    payload_version: int | None = None
    result: Any = None
    error: ErrorInfo | None = None
    progress: Progress | None = None
    queue: str | None = None
    labels: dict[str, str] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    timeout: float | None = None
    max_attempts: int | None = None
    submitted_at: datetime | None = None
    run_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None
    execution: str | None = None
    superseded: tuple[str, ...] = ()
    progress_n: int = 0
    placed: int = 0
    imported: bool = False
    """Whether its last event came from another tape: then its work is on no queue here, and not missed."""
    cursor: int = 0

    @property
    def final(self) -> bool:
        """Whether the present run is closed."""
        return self.state in FINAL
