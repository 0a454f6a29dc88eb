"""A job: its order, its states and its current status."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from jobtape.schemas import plainjson
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.queueing.lanes import Lane, lane_of

JOB_TYPE_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,119}$"
# No dots: a queue with one is a lane of the queue before it.
QUEUE_PATTERN: Final = r"^[A-Za-z0-9_\-]{1,64}$"
_WORK_QUEUE_PATTERN: Final = r"^[A-Za-z0-9_\-]{1,64}(\.(high|low))?$"
MAX_LABELS: Final = 32
LONGEST_DELAY: Final = 10 * 365 * 86_400.0
"""Seconds, ten years: a longer delay is a mistake in the unit."""


def _to_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # pydantic makes only ValueErrors validation errors
        raise ValueError("the time is out of range in UTC") from None


Utc = Annotated[AwareDatetime, AfterValidator(_to_utc)]
StorableText = Annotated[str, BeforeValidator(lambda text: plainjson.storable(text) if isinstance(text, str) else text)]
"""Text from a handler. Characters that JSON readers or databases refuse are replaced, so that they cannot make its
event unreadable.
"""
JobTypeName = Annotated[str, Field(pattern=JOB_TYPE_PATTERN)]
QueueName = Annotated[str, Field(pattern=QUEUE_PATTERN)]
WorkQueueName = Annotated[str, Field(pattern=_WORK_QUEUE_PATTERN)]
"""A queue, or one of its lanes."""


class JobState(StrEnum):
    """The states of a job. ``fold.TRANSITIONS`` has the transitions."""

    SCHEDULED = "scheduled"
    HELD = "held"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ENDINGS: Final = frozenset(state.value for state in FINAL)
"""The names of the events that end a run, which are those of the final states."""


class FlowNode(BaseModel):
    """Which job of a flow a job is, or of a job that others follow. ``id``: that flow or job. ``item``: the number of
    the item in a mapped node, from 0. ``depth``: how many jobs and flows are above it.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    node: str
    item: int | None = None
    depth: int = Field(default=1, ge=1, lt=2**31)


class Order(BaseModel):
    """Everything a worker needs to run a job. It is part of every event that places work on a queue.
    ``payload_version`` is the version of the job type's payload. ``timeout`` is in seconds. ``run_at`` None means now.
    """

    model_config = ConfigDict(frozen=True)

    type: JobTypeName
    payload: dict[str, Any]
    payload_version: int = Field(default=1, ge=1, lt=2**31)
    queue: WorkQueueName
    labels: dict[str, str] = Field(default_factory=dict)
    correlation_id: str | None = None
    run_at: Utc | None = None
    timeout: float = Field(gt=0, allow_inf_nan=False)
    max_attempts: int = Field(default=1, ge=1, lt=2**31)
    reply_to: str | None = None
    gates: Gates | None = None
    flow: FlowNode | None = None


class ErrorInfo(BaseModel):
    """Why an attempt failed: the exception's class name and text, and the shortened traceback of the handler."""

    model_config = ConfigDict(frozen=True)

    type: StorableText
    message: StorableText
    traceback: StorableText | None = None


class Progress(BaseModel):
    """The progress that a handler reported: ``fraction`` from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    fraction: float = Field(ge=0, le=1)
    message: StorableText | None = None


@dataclass(frozen=True)  # without slots, because of ``replace``
class Job:
    """The status of a job up to ``cursor``. Only ``fold.evolve`` makes it.

    Events of other publishers may come before the job's ``submitted``. Until that is read, ``submitted_at`` and the
    fields of the order are None. ``execution`` (the latest of the attempt), ``superseded`` (the earlier ones) and
    ``progress_n`` show whether a ``started`` or ``progressed`` is a repeated one. ``placed`` counts the placements of
    the work of the attempt that is due, and ``rescues`` those of this run that followed from lost work.
    ``deferred_since``: if the latest placement was deferred, when work of this attempt was deferred first for the same
    reason; otherwise None. ``gates``: what has to be free before the work of a run is placed first. ``gate_group``:
    the group of the gates. ``rank``: the jobs of a group are placed in the order of this number: the cursor of
    ``submitted`` with an ordering key, otherwise the due time in microseconds; of a flow where its run began.
    ``has_slots``: whether the job has slots of its gates. ``flow``, ``node``, ``item`` and ``depth``: see ``FlowNode``.
    ``follow_ups``: what follows in this run, as a ``RecordedFlow``. ``signals``: what was sent to this run, by name, as
    ``fold.signal_of`` returns it.
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
    rescues: int = 0
    deferred_since: datetime | None = None
    failure: str | None = None
    """The id of the ``FailureGroup`` of ``error``."""
    duplicate_of: str | None = None
    """Of a cancelled job: the job that is to run instead of it, which has the same unique key or debounce key."""
    gates: Gates | None = None
    gate_group: str | None = None
    rank: int | None = None
    has_slots: bool = False
    flow: str | None = None
    node: str | None = None
    item: int | None = None
    depth: int = 0
    follow_ups: dict[str, Any] | None = None
    signals: dict[str, Any] | None = None
    traceparent: str | None = None
    """The W3C trace context of the submission."""
    imported: bool = False
    """Whether its last event was imported from another tape: then it has no work on a queue, and needs none."""
    cursor: int = 0

    @property
    def final(self) -> bool:
        """Whether the current run has ended."""
        return self.state in FINAL

    @property
    def awaits_follow_ups(self) -> bool:
        """Whether the handler has ended, and the job waits for its follow-ups."""
        return self.follow_ups is not None and self.state is JobState.HELD

    @property
    def lane(self) -> Lane | None:
        """The lane of the job's queue; None until ``submitted`` has been read."""
        return None if self.queue is None else lane_of(self.queue)

    @property
    def attempt_due(self) -> int:
        """The attempt that an open job is in or waits for."""
        return self.attempt + 1 if self.state is JobState.RETRYING else self.attempt

    @property
    def awaits_placement(self) -> bool:
        """Whether the projector has to place the job's work when ``run_at`` has come."""
        state = self.state
        return (
            (
                state is JobState.SCHEDULED
                or (state is JobState.HELD and self.follow_ups is None)
                or state is JobState.RETRYING
                or (state is JobState.QUEUED and self.placed == 0)  # redriven
            )
            and not self.imported
            and self.submitted_at is not None
        )

    @property
    def order(self) -> Order | None:
        """What to run, without the delay; None until ``submitted`` has been read."""
        if self.submitted_at is None or self.queue is None or self.timeout is None:
            return None
        return Order(
            type=self.type,
            payload=self.payload or {},
            payload_version=self.payload_version or 1,
            queue=self.queue,
            labels=self.labels or {},
            correlation_id=self.correlation_id,
            timeout=self.timeout,
            max_attempts=self.max_attempts or 1,
            reply_to=self.reply_to,
            gates=self.gates,
            flow=self.flow_node,
        )

    @property
    def flow_node(self) -> FlowNode | None:
        """Which job of a flow it is, or of a job that others follow; None if it is neither."""
        if self.flow is None:
            return None
        return FlowNode(id=self.flow, node=self.node or "", item=self.item, depth=self.depth or 1)


class JobRun(NamedTuple):
    """One run of a job: what an event that ends it or begins the next one needs."""

    id: str
    type: str
    run: int
    attempt: int
    correlation_id: str | None


if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414 - re-exported
else:

    def replace(job: Job, **values: Any) -> Job:
        """Return a copy of ``job`` with other ``values`` of some fields.

        Same as ``dataclasses.replace``, which takes twenty times as long: it passes each field to ``__init__``, and a
        frozen class sets each one by a call. The fold does this for each event.
        """
        copy = object.__new__(Job)
        # In one piece: a dictionary is copied faster than it is updated.
        object.__setattr__(copy, "__dict__", job.__dict__ | values)
        return copy
