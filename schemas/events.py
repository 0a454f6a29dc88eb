"""The events on the tape: CloudEvents 1.0 in structured JSON mode, one class for each event.

The attributes follow the CloudEvents specification 1.0.2; ``correlationid``, ``causationid``, ``traceparent``,
``sampled`` and ``schemaversion`` are extensions. All data is in the JSON body, because a stream on RabbitMQ 3.10 drops
array headers.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from jobtape.schemas import ids, plainjson, upcast
from jobtape.schemas.errors import UnreadableEvent, faults_of, first_fault
from jobtape.schemas.job import ENDINGS, ErrorInfo, JobTypeName, Order, StorableText, Utc
from jobtape.schemas.trace_context import UNSAMPLED, unsampled_context

CONTENT_TYPE: Final = "application/cloudevents+json"
TYPE_PREFIX: Final = "jobtape.job."
# A payload is three levels deep in its event (data, order, payload).
_MAX_DEPTH: Final = plainjson.MAX_DEPTH + 3
_REASON_LENGTH: Final = 500

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


class _Data(BaseModel):
    """Fields of every event. Readers ignore fields that a later minor version adds."""

    model_config = ConfigDict(frozen=True)

    job_type: JobTypeName
    run: int = Field(ge=1, lt=2**31)
    attempt: int = Field(ge=1, lt=2**31)


class SubmittedData(_Data):
    """The order."""

    order: Order


class StartedData(_Data):
    """The worker and the execution."""

    execution: ExecutionId
    worker: str


class ProgressedData(_Data):
    """The progress. ``n`` counts the reports of one execution."""

    execution: ExecutionId
    n: int = Field(ge=1, lt=2**31)
    fraction: float = Field(ge=0, le=1)
    message: StorableText | None = None


class ContinuedData(_Data):
    """What follows, as a ``RecordedFlow``. ``duration`` is in seconds, from ``started_at``."""

    execution: ExecutionId
    worker: str
    started_at: Utc
    duration: float = Field(ge=0, allow_inf_nan=False)
    follow_ups: dict[str, Any]


class SignalledData(_Data):
    """The signal. ``payload``: None if the time was over before it came, which ``timed_out`` says too."""

    signal: SignalName
    payload: dict[str, Any] | None = None
    timed_out: bool = False


class RetryingData(_Data):
    """The error of the attempt, and the time of the next one."""

    execution: ExecutionId
    error: ErrorInfo
    reason: Reason
    next_at: Utc


class SucceededData(_Data):
    """The result. ``duration`` is in seconds, from ``started_at``."""

    execution: ExecutionId
    worker: str
    result: Any = None
    started_at: Utc
    duration: float = Field(ge=0, allow_inf_nan=False)


class FailedData(_Data):
    """Why the run failed. ``execution`` is None when no execution ended it (given up, lost)."""

    error: ErrorInfo
    reason: Reason
    execution: ExecutionId | None = None
    worker: str | None = None
    started_at: Utc | None = None
    duration: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class CancelledData(_Data):
    """``reason``: None if somebody asked for it. ``duplicate_of``: the job that is to run instead of this one."""

    reason: CancelReason | None = None
    duplicate_of: str | None = Field(default=None, pattern=ids.UUID_PATTERN)


class RedrivenData(_Data):
    """Only the common fields. ``run`` is the new run; the ``placed`` that follows places its work."""


class ReleasedData(_Data):
    """Only the common fields."""


class PlacedData(_Data):
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


class DeferredData(_Data):
    """The ``n``-th placement of this attempt could not be run and is deferred until ``until``. ``since``: when it was
    deferred first for this reason.
    """

    n: int = Field(ge=1, lt=2**31)
    reason: DeferReason
    until: Utc
    since: Utc


class _Envelope(BaseModel):
    """The CloudEvents attributes. ``id`` identifies the fact, ``subject`` is the job's id."""

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str]
    """The event's name: its type without ``TYPE_PREFIX``."""

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, max_length=255)
    source: str = Field(min_length=1)
    subject: str = Field(pattern=ids.UUID_PATTERN)
    time: Utc
    datacontenttype: Literal["application/json"] = "application/json"
    schemaversion: int = Field(upcast.CURRENT_VERSION, strict=True)
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    imported: str | None = None
    """The export's id, if the event was imported from another tape. It then has no effects."""
    importline: int | None = None
    """The line of an imported event in its export."""

    @property
    def context(self) -> str | None:
        """The trace context in which it was published; None if there is none, or for that of the submission."""
        return self.traceparent

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.name = cls.model_fields["type"].default.removeprefix(TYPE_PREFIX)


class Submitted(_Envelope):
    """A job was accepted. ``sampled``: False if its trace began with it and is not sampled. Then ``context`` is derived
    from the job's id.
    """

    type: Literal["jobtape.job.submitted"] = "jobtape.job.submitted"
    sampled: bool | None = None
    data: SubmittedData

    @property
    def context(self) -> str | None:
        """The trace context of the job."""
        if self.traceparent is None and self.sampled is False:
            return unsampled_context(self.subject)
        return self.traceparent


class Started(_Envelope):
    """A handler is running. Not published for a job that ends within a few tens of milliseconds."""

    type: Literal["jobtape.job.started"] = "jobtape.job.started"
    data: StartedData


class Progressed(_Envelope):
    """A handler reported progress."""

    type: Literal["jobtape.job.progressed"] = "jobtape.job.progressed"
    data: ProgressedData


class Continued(_Envelope):
    """A handler has ended and named the jobs that follow. The run goes on until they have ended."""

    type: Literal["jobtape.job.continued"] = "jobtape.job.continued"
    data: ContinuedData


class Signalled(_Envelope):
    """A signal was sent to the run, or did not come in time."""

    type: Literal["jobtape.job.signalled"] = "jobtape.job.signalled"
    data: SignalledData


class Retrying(_Envelope):
    """An attempt failed, and another one follows."""

    type: Literal["jobtape.job.retrying"] = "jobtape.job.retrying"
    data: RetryingData


class Succeeded(_Envelope):
    """The run has a result."""

    type: Literal["jobtape.job.succeeded"] = "jobtape.job.succeeded"
    data: SucceededData


class Failed(_Envelope):
    """The run failed."""

    type: Literal["jobtape.job.failed"] = "jobtape.job.failed"
    data: FailedData


class Cancelled(_Envelope):
    """The run was cancelled."""

    type: Literal["jobtape.job.cancelled"] = "jobtape.job.cancelled"
    data: CancelledData


class Redriven(_Envelope):
    """A job that has ended runs again."""

    type: Literal["jobtape.job.redriven"] = "jobtape.job.redriven"
    data: RedrivenData


class Released(_Envelope):
    """A failed job lets the next one with its ordering key run."""

    type: Literal["jobtape.job.released"] = "jobtape.job.released"
    data: ReleasedData


class Placed(_Envelope):
    """The work was placed on its queue: its time has come, or it was lost."""

    type: Literal["jobtape.job.placed"] = "jobtape.job.placed"
    data: PlacedData


class Deferred(_Envelope):
    """The work could not be run now and waits. No attempt was used."""

    type: Literal["jobtape.job.deferred"] = "jobtape.job.deferred"
    data: DeferredData


JobEvent = (
    Submitted
    | Started
    | Progressed
    | Continued
    | Signalled
    | Retrying
    | Succeeded
    | Failed
    | Cancelled
    | Redriven
    | Released
    | Placed
    | Deferred
)
EVENT_CLASSES: Final[tuple[type[_Envelope], ...]] = get_args(JobEvent)
EVENT_NAMES: Final = tuple(cls.name for cls in EVENT_CLASSES)
RelayMode = Literal["final", "all", "off"]
"""The values of ``JOBTAPE_RELAY_EVENTS``."""
RELAYED_EVENTS: Final[dict[RelayMode, frozenset[str]]] = {
    "final": ENDINGS,
    # The submitter knows of its own submission, and the payload would travel a second time.
    "all": frozenset(EVENT_NAMES) - {Submitted.name},
    "off": frozenset(),
}
"""The names of the events that the relay publishes."""
WorkEvent = Submitted | Placed
"""The events that place work: the messages on a work queue."""
ADAPTER: Final[TypeAdapter[JobEvent]] = TypeAdapter(Annotated[JobEvent, Field(discriminator="type")])
_validate_json: Final = ADAPTER.validator.validate_json


def encode(event: JobEvent) -> bytes:
    """Return the message body: UTF-8 JSON without unset attributes."""
    return event.model_dump_json(exclude_none=True).encode()


class EncodedEvent(NamedTuple):
    """An event as it travels: its ``name``, its job's type and id, and the message body."""

    name: str
    job_type: str
    subject: str
    body: bytes


def encoded(event: JobEvent) -> EncodedEvent:
    """Return the event as it travels."""
    return EncodedEvent(event.name, event.data.job_type, event.subject, encode(event))


def encoded_success(
    work: "WorkEvent",
    *,
    source: str,
    worker: str,
    execution: str,
    started_at: datetime,
    duration: float,
    result: Any,
    time: datetime,
    traceparent: str | None,
) -> EncodedEvent:
    """Return the event ``succeeded`` of an execution of ``work``, as ``encoded`` makes it of a ``Succeeded``,
    without its checks: most jobs succeed, and the checks take four times as long as the rest. ``result`` is plain
    JSON; times are UTC; ``duration`` is in seconds.
    """
    data = work.data
    job_type, run, attempt = data.job_type, data.run, data.attempt
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": ids.attempt_event_id(work.subject, run, attempt, Succeeded.name, execution),
        "source": source,
        "subject": work.subject,
        "time": time,
        "datacontenttype": "application/json",
        "schemaversion": upcast.CURRENT_VERSION,
        "correlationid": work.correlationid,
        "causationid": work.id,
        "traceparent": traceparent,
        "type": TYPE_PREFIX + Succeeded.name,
        "data": {
            "job_type": job_type,
            "run": run,
            "attempt": attempt,
            "execution": execution,
            "worker": worker,
            "result": result,
            "started_at": started_at,
            "duration": duration,
        },
    }
    for name in ("correlationid", "traceparent"):
        if event[name] is None:
            del event[name]
    if result is None:
        del event["data"]["result"]
    return EncodedEvent(Succeeded.name, job_type, work.subject, to_json(event, inf_nan_mode="null"))


def decode(body: bytes) -> JobEvent:
    """Return the event in a message body, upcast to the newest version. Raises UnreadableEvent with the reason."""
    if plainjson.is_surely_storable(body, max_depth=_MAX_DEPTH):
        try:
            event: JobEvent = _validate_json(body)
        except ValidationError:
            pass  # what follows says why
        else:
            if event.schemaversion == upcast.CURRENT_VERSION and "schemaversion" in event.model_fields_set:
                return event
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise UnreadableEvent(f"a JSON {type(raw).__name__}, not an object")
    return parse(raw)


def parse(raw: Mapping[str, Any]) -> JobEvent:
    """Return the event in a parsed CloudEvent, upcast to the newest version. Raises UnreadableEvent with the reason."""
    if (fault := plainjson.fault(raw, max_depth=_MAX_DEPTH)) is not None:
        raise UnreadableEvent(fault)
    try:
        return ADAPTER.validate_python(upcast.upcast(raw))
    except ValidationError as error:
        raise UnreadableEvent(_reason(error, raw)) from None


def _reason(error: ValidationError, raw: Mapping[str, Any]) -> str:
    faults = faults_of(error)
    match faults[0]["type"]:
        case "union_tag_not_found":
            return "no field `type`: not a job"
        case "union_tag_invalid":
            return f"not a job: no event has the `type` {raw.get('type')!r}"[:_REASON_LENGTH]
    return first_fault(faults, "event")[:_REASON_LENGTH]


def decode_work(body: bytes) -> WorkEvent:
    """Decode a message on a work queue. Raises UnreadableEvent, also for an event that places no work."""
    event = decode(body)
    if not isinstance(event, WorkEvent):
        raise UnreadableEvent(f"a {event.name} event on a work queue")
    return event


class _NewerData(_Data):
    n: int = Field(1, ge=1, lt=2**31)
    deferred: str | None = None
    deferred_since: Utc | None = None


class NewerWork(BaseModel):
    """What a work event of every version contains, so that an older program can defer it."""

    subject: str = Field(pattern=ids.UUID_PATTERN)
    correlationid: str | None = None
    traceparent: str | None = None
    data: _NewerData


def decode_newer_work(body: bytes) -> NewerWork:
    """Decode a work event of a newer version as far as needed to defer it. Raises UnreadableEvent."""
    try:
        return NewerWork.model_validate_json(body)
    except ValidationError as error:
        raise UnreadableEvent(first_fault(faults_of(error), "event")[:_REASON_LENGTH]) from None


def placement_number(event: WorkEvent | NewerWork) -> int:
    """Return which of its attempt's placements a message on a work queue is, counted from 1."""
    return 1 if isinstance(event, Submitted) else event.data.n


def submitted(
    job_id: str,
    order: Order,
    *,
    source: str,
    time: datetime,
    traceparent: str | None = None,
    causation_id: str | None = None,
) -> Submitted:
    """Return the event that accepts ``order`` as the job ``job_id``. Its id is the same for each call with this job
    id. ``causation_id``: the id of the event that it answers. ``traceparent``: the trace context, or ``UNSAMPLED``.
    """
    unsampled = traceparent == UNSAMPLED
    return Submitted(
        id=ids.run_event_id(job_id, 1, Submitted.name),
        source=source,
        subject=job_id,
        time=time,
        correlationid=order.correlation_id,
        causationid=causation_id,
        traceparent=None if unsampled else traceparent,
        sampled=False if unsampled else None,
        data=SubmittedData(job_type=order.type, run=1, attempt=1, order=order),
    )
