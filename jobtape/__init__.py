"""Jobs for FastAPI on a durable tape of events in RabbitMQ.

    from jobtape import Context, job

    @job("add")
    def add(x: int, y: int) -> int:
        return x + y

Importing this starts nothing and connects to nothing.
"""

from typing import TYPE_CHECKING, Any

from jobtape.jobs import JobType, Options, job
from jobtape.schemas.context import Context
from jobtape.schemas.errors import (
    BrokerUnavailable,
    EventsMissed,
    HistoryGone,
    JobtapeError,
    LogMissing,
    PayloadInvalid,
    SubscriptionRefused,
    UnknownJobType,
    ViewUnavailable,
)
from jobtape.schemas.heard import Heard
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.retry import Crashed, Fail, Retry, RetryPolicy

if TYPE_CHECKING:
    from jobtape.app import create_app, lifespan
    from jobtape.subscribing import subscribe

__all__ = [
    "BrokerUnavailable",
    "Context",
    "Crashed",
    "EventsMissed",
    "Fail",
    "Heard",
    "HistoryGone",
    "Job",
    "JobState",
    "JobType",
    "JobtapeError",
    "LogMissing",
    "Options",
    "PayloadInvalid",
    "Retry",
    "RetryPolicy",
    "SubscriptionRefused",
    "UnknownJobType",
    "ViewUnavailable",
    "create_app",
    "job",
    "lifespan",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    # Workers import their jobs through here and need no web framework for it.
    if name in ("create_app", "lifespan"):
        from jobtape import app  # noqa: PLC0415

        return getattr(app, name)
    if name == "subscribe":
        from jobtape.subscribing import subscribe  # noqa: PLC0415

        return subscribe
    raise AttributeError(f"module 'jobtape' has no attribute {name!r}")
