"""The errors of the producer, in addition to those of ``schemas.errors``.

JobtapeError
├── PayloadTooLarge      the caller's fault
├── JobFinal             the caller's fault, or just too late: the job has ended
├── JobNotFinal          the caller's fault, or too early: the job has not ended
├── SignalTaken          nobody's: the run has another signal with this name, or its time is over
├── JobGone              nobody's: the job ended long ago and is no longer kept
├── ScheduleChanged      the caller's fault, or just too late: the schedule is not the one that the caller knows
├── WebhookMissing       the caller's fault: there is no such webhook
├── WebhookDisabled      the caller's fault: the webhook gets no events
├── WebhookInvalid       the caller's fault: a field of a webhook is wrong
├── KeyRefused           the caller's fault: the API key is unknown, expired or revoked
├── KeyMissing           the caller's fault: there is no API key with this id
├── KeyInvalid           the caller's fault: a field of a new API key is wrong
├── TooManyRequests      the caller's fault: more requests than its API key allows
├── SubmissionNotKept    nobody's: the job's submission is no longer on the tape
├── PointGone            nobody's: the point is before the history that is kept
├── PointNotReached      the caller's fault: the point is in the future
├── IdempotencyKeyInvalid  the caller's fault: not a key
├── IdempotencyKeyReused   the caller's fault: another submission under a key that was used
├── IdempotencyInFlight  nobody's: the first submission under the key has no outcome yet
├── ViewBehind           ours: whether there is such a job is not known yet
└── TooBusy              ours: too many requests are waiting
"""

from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import JobState


class JobGone(JobtapeError):
    """The job ended so long ago that it is not kept any more (JOBTAPE_JOB_RETENTION)."""


class PayloadTooLarge(JobtapeError):
    """The payload has more bytes than JOBTAPE_MAX_PAYLOAD allows."""


class IdempotencyKeyInvalid(JobtapeError):
    """The idempotency key is too long, or has characters that a key may not have."""


class IdempotencyKeyReused(JobtapeError):
    """The idempotency key belongs to another submission; nothing was published."""


class IdempotencyInFlight(JobtapeError):
    """The first submission under the idempotency key has no outcome yet: repeat it after ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _StateUnfit(JobtapeError):
    def __init__(self, message: str, state: JobState) -> None:
        super().__init__(message)
        self.state = state


class JobFinal(_StateUnfit):
    """The job has ended, in ``state``."""


class JobNotFinal(_StateUnfit):
    """The job has not ended; it is in ``state``."""


class SignalTaken(JobtapeError):
    """The run has a signal with this name from somebody else, its time was over first, or it can take no more."""


class ScheduleChanged(JobtapeError):
    """The schedule is not in the version that the caller wanted to replace; nothing was changed."""


class SubmissionNotKept(JobtapeError):
    """The job's submission is not on the tape, so its work cannot be placed again."""


class PointGone(JobtapeError):
    """The point is before the horizon, after which the history is kept."""


class PointNotReached(JobtapeError):
    """That point is in the future, or beyond what the view has read."""


class ViewBehind(JobtapeError):
    """The view did not catch up in time: it is not known whether there is such a job."""


class TooBusy(JobtapeError):
    """More requests are waiting than this process holds."""


class WebhookMissing(JobtapeError):
    """There is no such webhook."""


class WebhookDisabled(JobtapeError):
    """The webhook is disabled, so it gets no events."""


class WebhookInvalid(JobtapeError):
    """A webhook has a fault. ``field``: the field of the body that has it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class KeyRefused(JobtapeError):
    """No request with this API key is answered."""


class KeyMissing(JobtapeError):
    """There is no API key with this id."""


class KeyInvalid(JobtapeError):
    """A new API key has a fault. ``field``: the field of the body that has it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TooManyRequests(JobtapeError):
    """The API key has sent more requests than it may. ``retry_after``: seconds until the next one."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
