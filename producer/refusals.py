"""What the producer refuses, besides what ``schemas.errors`` knows.

JobtapeError
├── SubmissionInvalid    the caller's fault: not a submission, or one that can't be honoured here
├── PayloadTooLarge      the caller's fault
├── ViewBehind           ours: whether there is such a job can't be told yet
└── TooBusy              ours: too many are waiting for the same
"""

from collections.abc import Sequence
from typing import Any

from jobtape.schemas.errors import JobtapeError


class SubmissionInvalid(JobtapeError):
    """``errors``: one entry a fault, with ``loc`` (the path in the body) and ``msg``."""

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class PayloadTooLarge(JobtapeError):
    """The payload has more bytes than JOBTAPE_MAX_PAYLOAD allows."""


class ViewBehind(JobtapeError):
    """The view did not catch up in time: it is not known whether there is such a job."""


class TooBusy(JobtapeError):
    """More requests are waiting than this process holds."""
