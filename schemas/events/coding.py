"""Events as they travel: JSON in the body of a message."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from jobtape.schemas import ids, plainjson
from jobtape.schemas.errors import UnreadableEvent, faults_of, first_fault
from jobtape.schemas.events import upcast
from jobtape.schemas.events.data import EventData
from jobtape.schemas.events.events import ADAPTER, TYPE_PREFIX, JobEvent, Submitted, Succeeded, WorkEvent
from jobtape.schemas.job import Utc

CONTENT_TYPE: Final = "application/cloudevents+json"
# A payload is three levels deep in its event (data, order, payload).
_MAX_DEPTH: Final = plainjson.MAX_DEPTH + 3
_REASON_LENGTH: Final = 500
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


class _NewerData(EventData):
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
