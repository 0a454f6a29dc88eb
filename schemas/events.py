"""The events on the tape: CloudEvents 1.0 in the structured JSON mode, one class for each, in a closed union.

The source of the attributes is the CloudEvents specification 1.0.2; ``correlationid``, ``causationid``, ``traceparent``
and ``schemaversion`` are extensions. Everything that matters is in the JSON body, because a stream on RabbitMQ 3.10
drops array headers.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from jobtape.schemas import ids, plainjson, upcast
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.job import CarriedText, ErrorInfo, Job, JobTypeName, Order, Utc

CONTENT_TYPE: Final = "application/cloudevents+json"
TYPE_PREFIX: Final = "jobtape.job."
# A payload stands three levels deep in its event (data, order, payload), and must be readable there as well.
_DEPTH_LIMIT: Final = plainjson.DEPTH_LIMIT + 3
_REASON_LENGTH: Final = 500

ExecutionId = Annotated[str, Field(min_length=1, max_length=64)]  # it stands in event ids, which have 255 characters
Dropped = Literal["expired", "maxlen"]
"""Why the broker dropped work that waited, in its own words."""
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
]


class _Data(BaseModel):
    """What every event says; a reader ignores fields that a later minor version adds."""

    model_config = ConfigDict(frozen=True)

    job_type: JobTypeName
    run: int = Field(ge=1, lt=2**31)
    attempt: int = Field(ge=1, lt=2**31)


class SubmittedData(_Data):
    """The whole order."""

    order: Order


class StartedData(_Data):
    """Which worker, in which execution."""

    execution: ExecutionId
    worker: str


class ProgressedData(_Data):
    """How far; ``n`` counts the reports of one execution."""

    execution: ExecutionId
    n: int = Field(ge=1, lt=2**31)
    fraction: float = Field(ge=0, le=1)
    message: CarriedText | None = None


class RetryingData(_Data):
    """The attempt failed and the next one is arranged for ``next_at``; the order goes along to the work queue."""

    execution: ExecutionId
    error: ErrorInfo
    reason: Reason
    next_at: Utc
    order: Order


class SucceededData(_Data):
    """The result; ``duration`` is in seconds, from ``started_at``."""

    execution: ExecutionId
    worker: str
    result: Any = None
    started_at: Utc
    duration: float = Field(ge=0, allow_inf_nan=False)


class FailedData(_Data):
    """The end of a run without success. Without ``execution`` nobody ran it to this end (given up, lost)."""

    error: ErrorInfo
    reason: Reason
    execution: ExecutionId | None = None
    worker: str | None = None
    started_at: Utc | None = None
    duration: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class CancelledData(_Data):
    """Somebody asked for it to stop."""


class RedrivenData(_Data):
    """A closed job is to be worked on again, as run ``run``. The work itself is placed by the ``requeued`` that follows
    from it."""


class RequeuedData(_Data):
    """The work was placed on its queue as an effect of the fold: the ``n``-th time for this run, counting the
    submission's own. ``why``: after a redrive, because it was found lost, or because the broker had given it up.
    ``lost_execution``: the one that was shown as running when that was found, and is taken for dead. ``dropped``: the
    broker had not given it up after many returns, but dropped it while it waited, as a policy asks for: it had expired,
    or the queue was longer than its limit."""

    n: int = Field(ge=1, lt=2**31)
    why: Literal["redriven", "lost", "given_up"]
    lost_execution: ExecutionId | None = None
    dropped: Dropped | None = None
    order: Order


class _Envelope(BaseModel):
    """The CloudEvents attributes. ``id`` says which fact it is, ``subject`` is the job's id."""

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str]

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, max_length=255)
    source: str = Field(min_length=1)
    subject: str = Field(pattern=ids.UUID_PATTERN)
    time: Utc
    datacontenttype: Literal["application/json"] = "application/json"
    schemaversion: int = upcast.CURRENT_VERSION
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    imported: str | None = None
    """Of an event of another tape: the export's id. What it says is history, and nothing follows from it."""
    importline: int | None = None
    """Its line in the export."""


class Submitted(_Envelope):
    """A job was accepted."""

    name: ClassVar[str] = "submitted"
    type: Literal["jobtape.job.submitted"] = "jobtape.job.submitted"
    data: SubmittedData


class Started(_Envelope):
    """A worker's handler is running; not published for a job that ends within a few tens of milliseconds."""

    name: ClassVar[str] = "started"
    type: Literal["jobtape.job.started"] = "jobtape.job.started"
    data: StartedData


class Progressed(_Envelope):
    """A handler reported how far it is."""

    name: ClassVar[str] = "progressed"
    type: Literal["jobtape.job.progressed"] = "jobtape.job.progressed"
    data: ProgressedData


class Retrying(_Envelope):
    """An attempt failed, the next one is arranged."""

    name: ClassVar[str] = "retrying"
    type: Literal["jobtape.job.retrying"] = "jobtape.job.retrying"
    data: RetryingData


class Succeeded(_Envelope):
    """The run is done and has a result."""

    name: ClassVar[str] = "succeeded"
    type: Literal["jobtape.job.succeeded"] = "jobtape.job.succeeded"
    data: SucceededData


class Failed(_Envelope):
    """The run is over without success."""

    name: ClassVar[str] = "failed"
    type: Literal["jobtape.job.failed"] = "jobtape.job.failed"
    data: FailedData


class Cancelled(_Envelope):
    """The run was cancelled."""

    name: ClassVar[str] = "cancelled"
    type: Literal["jobtape.job.cancelled"] = "jobtape.job.cancelled"
    data: CancelledData


class Redriven(_Envelope):
    """A closed job runs again."""

    name: ClassVar[str] = "redriven"
    type: Literal["jobtape.job.redriven"] = "jobtape.job.redriven"
    data: RedrivenData


class Requeued(_Envelope):
    """The work is on its queue once more."""

    name: ClassVar[str] = "requeued"
    type: Literal["jobtape.job.requeued"] = "jobtape.job.requeued"
    data: RequeuedData


JobEvent = Submitted | Started | Progressed | Retrying | Succeeded | Failed | Cancelled | Redriven | Requeued
EVENT_CLASSES: Final[tuple[type[_Envelope], ...]] = (
    Submitted,
    Started,
    Progressed,
    Retrying,
    Succeeded,
    Failed,
    Cancelled,
    Redriven,
    Requeued,
)
EVENT_NAMES: Final = tuple(cls.name for cls in EVENT_CLASSES)
ADAPTER: Final[TypeAdapter[JobEvent]] = TypeAdapter(Annotated[JobEvent, Field(discriminator="type")])


def encode(event: JobEvent) -> bytes:
    """The message body: UTF-8 JSON; attributes that are not set are absent."""
    return event.model_dump_json(exclude_none=True).encode()


def decode(body: bytes) -> JobEvent:
    """The event in a message body, lifted to the present version. Raises UnreadableEvent with the reason."""
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise UnreadableEvent(f"a JSON {type(raw).__name__}, not an object")
    return parse(raw)


def parse(raw: Mapping[str, Any]) -> JobEvent:
    """The event in a parsed CloudEvent. Raises UnreadableEvent with the reason."""
    if (fault := plainjson.fault(raw, depth_limit=_DEPTH_LIMIT)) is not None:
        raise UnreadableEvent(fault)
    try:
        return ADAPTER.validate_python(upcast.upcast(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnreadableEvent(f"{place or 'event'}: {first['msg']}"[:_REASON_LENGTH]) from None


def submitted(
    job_id: str,
    order: Order,
    *,
    source: str,
    time: datetime,
    traceparent: str | None = None,
    causation_id: str | None = None,
) -> Submitted:
    """The event that accepts ``order`` as the job ``job_id``; accepting it again gives the same event id.
    ``causation_id``: the event that it answers.
    """
    return Submitted(
        id=ids.run_fact(job_id, 1, Submitted.name),
        source=source,
        subject=job_id,
        time=time,
        correlationid=order.correlation_id,
        causationid=causation_id,
        traceparent=traceparent,
        data=SubmittedData(job_type=order.type, run=1, attempt=1, order=order),
    )


def cancelled(job: Job, *, source: str, time: datetime) -> Cancelled:
    """The event that ends the present run of ``job``; asking for it again gives the same event id."""
    return Cancelled(
        id=ids.run_fact(job.id, job.run, Cancelled.name),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        data=CancelledData(job_type=job.type, run=job.run, attempt=job.attempt),
    )
