"""Submissions: the options of one job, and the value that the REST API, the clients and ``submit`` make of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from jobtape.schemas import plainjson
from jobtape.schemas.errors import SubmissionInvalid, faults_of
from jobtape.schemas.job import LONGEST_DELAY, MAX_LABELS, FlowNode, QueueName, Utc, WorkQueueName
from jobtape.schemas.queueing.gates import KEY_LENGTH
from jobtape.schemas.queueing.lanes import Lane

LABEL_NAME_LENGTH: Final = 64
LABEL_VALUE_LENGTH: Final = 200
CORRELATION_ID_LENGTH: Final = 255
IDEMPOTENCY_KEY: Final = re.compile(r"^[\x21-\x7e]{1,255}$")
"""What a whole idempotency key matches."""
MAX_NEXT_STEPS: Final = 999
"""Of a chain: with its first job as many as a flow has nodes."""
MAX_FAULTS: Final = 20
"""Faults reported of one submission. A long list of wrong values would otherwise make a response larger than the
request."""

_DATE_AND_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT", re.ASCII | re.IGNORECASE)


def _check_text(text: str) -> str:
    if (reason := plainjson.fault(text)) is not None:
        raise ValueError(reason.removeprefix("value: "))
    return text


def _check_time(value: Any) -> Any:
    # pydantic would take numbers for seconds or milliseconds since 1970, depending on their size.
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        return value
    raise ValueError("a time is an RFC 3339 text with an offset, like 2026-01-31T12:00:00Z")


_Text = AfterValidator(_check_text)
# No colon: lists ask for `?label=name:value`.
LabelName = Annotated[str, Field(min_length=1, max_length=LABEL_NAME_LENGTH, pattern="^[^:]*$"), _Text]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_LENGTH), _Text]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one submission. None means the job type's value. Times are in seconds.

    They are checked when the job is submitted.
    """

    queue: str | None = None
    """The work queue: that of a job type."""
    lane: Lane | None = None
    """``"high"``, ``"normal"`` or ``"low"``, if the queue has lanes."""
    timeout: float | None = None
    """Seconds that an attempt may run."""
    delay: float | None = None
    """Seconds from now until the job is due. Not together with ``run_at``."""
    run_at: datetime | None = None
    """When the job is due: a time with a zone. A time in the past means now."""
    max_attempts: int | None = None
    """How many attempts a run has, 1 to 1000."""
    ordering_key: str | None = None
    """Jobs with the same key run one after the other, in the order of their submissions: that of the job type."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Texts to find the job by, at most 32: ``{"tenant": "a"}``."""
    correlation_id: str | None = None
    """An id of yours for everything that belongs together. All events of the job have it."""
    reply_to: str | None = None
    """The job's final event is also published with the routing key ``reply.<reply_to>``."""
    idempotency_key: str | None = None
    """Your name for this submission. The same key again makes no second job. Needs the database."""


class Spawned(NamedTuple):
    """Which job a submission from within a handler is: its ``id``, and the place below the handler's job."""

    id: str
    flow: FlowNode


class NextStep(BaseModel):
    """A step of a chain. What is absent is left to the job type; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    type: str = Field(min_length=1, max_length=120)
    """A job type of `GET /job-types`."""
    payload: dict[str, Any] = Field(default_factory=dict)
    """What the job type's JSON Schema asks for. `{"$previous": JSON Pointer}` stands for what is there in the result of
    the step before; the pointer `""` is the whole result. `{"$from": node, "path": JSON Pointer}` stands for the result
    of an earlier step, by the name of its node."""
    queue: WorkQueueName | None = None
    lane: Lane | None = None
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    max_attempts: int | None = Field(None, ge=1, le=1000)
    ordering_key: Annotated[str, _Text] | None = Field(None, min_length=1, max_length=KEY_LENGTH)
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=MAX_LABELS)


class Submission(BaseModel):
    """One job to be done. What is absent is left to the job type; unknown fields are refused."""

    # Strict: the text "30" is no number of seconds, and a client that sends it has made a mistake.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    type: str = Field(min_length=1, max_length=120)
    """A job type of `GET /job-types`."""
    payload: dict[str, Any]
    """What the job type's JSON Schema asks for."""
    queue: WorkQueueName | None = None
    """The work queue: that of a job type. Default: the job type's."""
    lane: Lane | None = None
    """`high`, `normal` or `low`, if the queue has lanes. Default: the job type's, or `normal`."""
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds that an attempt may run. Default: the job type's."""
    delay: float | None = Field(None, ge=0, le=LONGEST_DELAY, allow_inf_nan=False)
    """Seconds from now until it is due, up to ten years."""
    run_at: Annotated[Utc, Strict(False), BeforeValidator(_check_time)] | None = None
    """When it is due (RFC 3339, with an offset), up to ten years ahead; a time gone by means now."""
    max_attempts: int | None = Field(None, ge=1, le=1000)
    """How many attempts a run has, 1 to 1000. Default: the job type's."""
    ordering_key: Annotated[str, _Text] | None = Field(None, min_length=1, max_length=KEY_LENGTH)
    """Jobs with the same key run one after the other, in the order of their submissions. Default: the job type's."""
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=MAX_LABELS)
    """At most 32 texts by name. Lists and events can be filtered by them: `?label=name:value`."""
    correlation_id: Annotated[str, _Text] | None = Field(None, min_length=1, max_length=CORRELATION_ID_LENGTH)
    """An id of yours for everything that belongs together."""
    reply_to: QueueName | None = None
    """The final event is also published with the routing key `reply.<reply_to>`."""
    then: list[NextStep] = Field(default_factory=list, max_length=MAX_NEXT_STEPS)
    """Jobs that run one after the other when this one has succeeded. With them the submission is a flow, a job of the
    type `jobtape.flow`, whose first job has `type`, `payload`, `queue`, `lane`, `timeout`, `max_attempts` and
    `ordering_key`. All its jobs have the labels and the correlation id."""

    @model_validator(mode="after")
    def _check_one_time(self) -> "Submission":
        if self.delay is not None and self.run_at is not None:
            raise ValueError("delay and run_at both say when it is due: give one of them")
        return self


class BatchSubmission(Submission):
    """An item of a batch."""

    idempotency_key: str | None = Field(None, pattern=IDEMPOTENCY_KEY.pattern)
    """What the header Idempotency-Key is for a single submission, though as it is, without quotes."""


S = TypeVar("S", bound=Submission)


def submission_body(job_type: str, payload: dict[str, Any], options: Options) -> dict[str, Any]:
    """Return the submission as the fields of ``POST /jobs``, unchecked.

    Options that are not given are absent, and so is the idempotency key, which is a header.
    """
    given = {each.name: getattr(options, each.name) for each in fields(options) if each.name != "idempotency_key"}
    given["labels"] = dict(options.labels) or None
    return {"type": job_type, "payload": payload} | {name: value for name, value in given.items() if value is not None}


def read_submission(value: Any, model: type[S]) -> S:
    """Check a parsed JSON value, and return the submission in it. Raises SubmissionInvalid with the faults."""
    if not isinstance(value, Mapping):
        kind = "null" if value is None else type(value).__name__
        message = f"a submission is a JSON object with type and payload, not {kind}"
        raise SubmissionInvalid(message, [{"loc": (), "msg": message}])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = faults_of(error)
        first = faults[0]
        path = ".".join(str(part)[:80] for part in first["loc"])
        raise SubmissionInvalid(
            f"not a submission: {f'{path}: ' if path else ''}{_message(first)}",
            [{"loc": fault["loc"], "msg": _message(fault)} for fault in faults[:MAX_FAULTS]],
        ) from None


def _message(fault: Mapping[str, Any]) -> str:
    """Return a fault's message, without what pydantic puts before those of our own validators."""
    return str(fault["msg"]).removeprefix("Value error, ")
