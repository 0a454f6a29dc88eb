"""The errors that Jobtape raises.

JobtapeError
├── PayloadInvalid          the caller's fault: the payload does not fit the job type
├── SubmissionInvalid       the caller's fault: no submission, or one with options that are not possible here
├── ResultInvalid           the handler's fault: the result is no JSON, or does not fit the return annotation
├── UnknownJobType          the caller's fault: no job type of this name is loaded
├── JobTypeInvalid          the author's fault: the function cannot be a job type
├── UnreadableEvent         the message's fault: no event, or one of a newer version
├── BrokerUnavailable       the broker did not confirm in time; it may have the message
│   └── QueueFull           the work queue has reached its length limit
├── WorkerStuck             the handlers' fault: they do not end, and the worker has no slot left
├── TapeMissing             the broker answers, but the tape does not exist
├── ViewUnavailable         the database does not answer
│   └── DatabaseUnfit       the installation's fault: the database or its pooler cannot hold a view
├── SubscriptionRefused     the caller's fault: the subscription cannot be what was requested
└── EventsMissed            nobody's fault: the subscriber may have missed events
    └── HistoryGone         nobody's fault: the events after the reader's position are no longer kept
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import ValidationError

NAME_LENGTH: Final = 200


class JobtapeError(Exception):
    """The base class. The text says what is wrong and what to do next."""


class _Faulty(JobtapeError):
    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class PayloadInvalid(_Faulty):
    """The payload does not fit the job type. ``errors``: a dict with ``loc``, ``msg`` and ``type`` for each fault."""


class SubmissionInvalid(_Faulty):
    """A submission has faults. ``errors``: a dict with ``loc`` (the path in the body) and ``msg`` for each fault."""


class ResultInvalid(JobtapeError):
    """A handler's result is no JSON, or does not fit the return annotation."""


class UnknownJobType(JobtapeError):
    """No job type of this name is loaded in this process."""


class JobTypeInvalid(JobtapeError):
    """A function cannot be made into a job type, or two job types have the same name."""


class UnreadableEvent(JobtapeError):
    """A message is not an event, or its version is ``newer`` than this program."""

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class BrokerUnavailable(JobtapeError):
    """No confirm came in time. The broker may have the message: publish the same event id again, or give up.

    Except for QueueFull: then it has nothing.
    """


class QueueFull(BrokerUnavailable):
    """The queue refuses more work because a policy limits its length. Nothing was published."""


class WorkerStuck(JobtapeError):
    """Handlers that cannot be stopped hold all slots of the worker: its process must end and start again."""


class TapeMissing(JobtapeError):
    """The broker has no tape, so the event was not recorded."""


class ViewUnavailable(JobtapeError):
    """The database does not answer, or has no tables yet."""


class DatabaseUnfit(ViewUnavailable):
    """The database answers but cannot hold a view: its encoding, version or pooler does not fit. Retrying does not
    help.
    """


class SubscriptionRefused(JobtapeError):
    """The filter fits nothing, the events are not published to queues, or the name is used for another subscription."""


class EventsMissed(JobtapeError):
    """The subscriber may have missed events. Continuing with ``since=cursor`` misses none that are still kept.
    ``cursor`` is None when nothing was settled yet: then start with a cursor of your own or "first", since
    ``since=None`` is live.
    """

    def __init__(self, message: str, cursor: int | None = None) -> None:
        super().__init__(message)
        self.cursor = cursor


class HistoryGone(EventsMissed):
    """A reader's position is below the ``horizon`` (older history is no longer kept) or beyond the ``head`` (it belongs
    to another tape). Continue from ``cursor``, knowing that events are missing.
    """

    cursor: int

    def __init__(self, horizon: int, head: int, cursor: int) -> None:
        super().__init__(
            f"the history after this position is gone: events are kept after cursor {horizon} up to {head}; "
            f"continue with since={cursor}, and reload what you have stored of older events",
            cursor,
        )
        self.horizon = horizon
        self.head = head


def faults_of(error: ValidationError) -> list[dict[str, Any]]:
    """Return all faults as dicts with ``loc``, ``msg`` and ``type``, without the values, which may be secrets."""
    return [dict(fault) for fault in error.errors(include_url=False, include_input=False, include_context=False)]


def first_fault(faults: Sequence[dict[str, Any]], whole: str = "") -> str:
    """Return the first fault as ``path: reason``. ``whole`` is the path of a fault in the value as a whole."""
    path = ".".join(str(part) for part in faults[0]["loc"]) or whole
    return f"{path}: {faults[0]['msg']}" if path else str(faults[0]["msg"])


def text_of(make: Callable[[], str], simpler: Callable[[], str] = str) -> str:
    """Return what ``make`` returns, as a plain str. When it raises, return what ``simpler`` returns, and a note.

    Use it for a text of a user's exception or value, whose own code may raise.
    """
    try:
        return str.__str__(make())
    except BaseException as broken:  # noqa: BLE001 - an exception whose own __str__ raises
        return f"{text_of(simpler)}(its text could not be made: {class_name(broken)})"


def class_name(error: BaseException) -> str:
    """Return the name of an exception's class, at most ``NAME_LENGTH`` characters."""
    # Not ``type(error).__qualname__``, which a metaclass may compute.
    name = str.__str__(vars(type)["__qualname__"].__get__(type(error)))
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def described(error: BaseException) -> str:
    """Return class and text of a user's exception, whose own code may raise."""
    return f"{class_name(error)}: {text_of(lambda: str(error))}"
