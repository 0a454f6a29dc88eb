"""Every error that Jobtape raises on purpose.

JobtapeError
├── PayloadInvalid          the caller's fault: the payload does not fit the job type
├── SubmissionInvalid       the caller's fault: not a submission, or one with options that cannot be had here
├── ResultInvalid           the handler's fault: what it returned is no JSON, or not what it declared
├── UnknownJobType          the caller's fault: no such job type here
├── JobTypeInvalid          the author's fault: a handler that cannot be a job type
├── UnreadableEvent         the message's fault: not an event that this version can read
├── BrokerUnavailable       the broker did not confirm in time; whether it has the message is not known
│   └── QueueFull           the queue that the work is for has a length limit, and refuses more
├── WorkerStuck             the handlers' fault: they do not end, and this process can do nothing more
├── TapeMissing              the broker answers, but the tape is not there
├── ViewUnavailable         the database does not answer
│   └── DatabaseUnfit       the installation's fault: a database or a pooler that cannot hold a view
├── SubscriptionRefused     the caller's fault: a subscription that could not be what was asked for
└── EventsMissed            nobody's fault: events that were wanted may have gone by unheard
    └── HistoryGone         the reader's position: what comes behind it is no longer kept, or it is of another tape
"""

from collections.abc import Sequence
from typing import Any


class JobtapeError(Exception):
    """Base of all; its text says what is wrong and what to do next."""


class PayloadInvalid(JobtapeError):
    """The payload does not fit the job type. ``errors``: one entry a fault, with ``loc``, ``msg`` and ``type``."""

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class SubmissionInvalid(JobtapeError):
    """A submission has faults. ``errors``: one entry a fault, with ``loc`` (the path in the body) and ``msg``."""

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class ResultInvalid(JobtapeError):
    """What a handler returned is no JSON, or does not fit its return annotation."""


class UnknownJobType(JobtapeError):
    """No job type of that name is loaded in this process."""


class JobTypeInvalid(JobtapeError):
    """A function that cannot be made into a job type, or two job types of one name."""


class UnreadableEvent(JobtapeError):
    """A message that is not an event, or one of a version ``newer`` than this program."""

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class BrokerUnavailable(JobtapeError):
    """No confirm in time. The broker may or may not have the message: publish the same event id again, or give up."""


class QueueFull(BrokerUnavailable):
    """The queue refuses the work, because a policy limits its length. ``recorded``: the event is on the tape all the
    same; otherwise nothing was published.
    """

    def __init__(self, message: str, *, recorded: bool) -> None:
        super().__init__(message)
        self.recorded = recorded


class WorkerStuck(JobtapeError):
    """Handlers that cannot be ended leave a worker no slot: its process should end and be started again."""


class TapeMissing(JobtapeError):
    """The broker took the publish, but no tape is bound: the event is not recorded."""


class ViewUnavailable(JobtapeError):
    """The database does not answer, or has no tables yet."""


class DatabaseUnfit(ViewUnavailable):
    """The database answers and cannot hold a view, whatever is tried: its encoding, version or pooler does not fit."""


class SubscriptionRefused(JobtapeError):
    """A filter that nothing fits, events that are not published this way, or a name that stands for something else."""


class EventsMissed(JobtapeError):
    """Events that were wanted may have gone by unheard. ``cursor``: going on behind it (``since=cursor``) misses
    nothing that is still there; None when nothing was settled yet (``since=None`` is live: begin with a cursor of one's
    own, or "first").
    """

    def __init__(self, message: str, cursor: int | None = None) -> None:
        super().__init__(message)
        self.cursor = cursor


class HistoryGone(EventsMissed):
    """A reader's position is below the ``horizon`` (history behind it is no longer kept) or beyond the ``head`` (it is
    of another tape). Nothing is skipped silently: go on behind ``cursor``, knowing that events are missing.
    """

    cursor: int

    def __init__(self, horizon: int, head: int, cursor: int) -> None:
        super().__init__(
            f"the history behind this position is gone: it is kept from behind cursor {horizon} up to {head}; "
            f"go on with since={cursor}, and read again what you know of older events",
            cursor,
        )
        self.horizon = horizon
        self.head = head
