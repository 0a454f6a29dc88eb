"""The items of a batch that are to be published, and the outcomes of items."""

from dataclasses import dataclass
from datetime import datetime

from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import Order


@dataclass(frozen=True, slots=True)
class ItemToPublish:
    """An order to publish as the job ``job_id``. ``time``: its event's."""

    order: Order
    job_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class ItemAccepted:
    """The job is on the tape, and on its queue unless it waits."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ItemRefused:
    """Nothing was published; ``error`` says why."""

    error: JobtapeError


@dataclass(frozen=True, slots=True)
class ItemUnknown:
    """The job may have been accepted or not: no confirm came in time, or another request submits it under the same
    idempotency key at the same time.
    """

    job_id: str


ItemOutcome = ItemAccepted | ItemRefused | ItemUnknown
