"""One class for each event, with the attributes of CloudEvents."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from jobtape.schemas import ids
from jobtape.schemas.events import upcast
from jobtape.schemas.events.data import (
    CancelledData,
    ContinuedData,
    DeferredData,
    FailedData,
    PlacedData,
    ProgressedData,
    RedrivenData,
    ReleasedData,
    RetryingData,
    SignalledData,
    StartedData,
    SubmittedData,
    SucceededData,
)
from jobtape.schemas.events.trace_context import UNSAMPLED, unsampled_context
from jobtape.schemas.job import ENDINGS, Order, Utc

TYPE_PREFIX: Final = "jobtape.job."


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
