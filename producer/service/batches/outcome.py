"""What an item of a batch is when it is to be published, and what can become of it."""

from dataclasses import dataclass
from datetime import datetime

from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import Order


@dataclass(frozen=True, slots=True)
class ItemToPublish:
    """An order that is to be published as the job ``job_id``; ``time`` is its event's, None: now."""

    order: Order
    job_id: str
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ItemAccepted:
    """It is on the tape and on its queue."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ItemRefused:
    """Nothing was published; ``error`` says why."""

    error: JobtapeError


@dataclass(frozen=True, slots=True)
class ItemUnknown:
    """The job ``job_id`` may have been accepted, or not: no confirm came in time, or somebody else is submitting it
    under the same idempotency key just now. ``full``: it is on the tape, and its queue was too full to take its work.
    """

    job_id: str
    full: bool = False


ItemOutcome = ItemAccepted | ItemRefused | ItemUnknown
