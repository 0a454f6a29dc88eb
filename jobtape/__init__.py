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
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.retry import Crashed, Fail, Retry, RetryPolicy

if TYPE_CHECKING:
    from jobtape.app import create_app, lifespan
    from jobtape.client import Client, SyncClient
    from jobtape.schemas.heard import Heard
    from jobtape.subscribing import subscribe

__all__ = [
    "BrokerUnavailable",
    "Client",
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
    "SyncClient",
    "UnknownJobType",
    "ViewUnavailable",
    "create_app",
    "job",
    "lifespan",
    "subscribe",
]


_ELSEWHERE = {
    "Client": "jobtape.client",
    "Heard": "jobtape.schemas.heard",
    "SyncClient": "jobtape.client",
    "create_app": "jobtape.app",
    "lifespan": "jobtape.app",
    "subscribe": "jobtape.subscribing",
}


def __getattr__(name: str) -> Any:
    # Workers import their jobs through here and need no web framework for it; the command line is to start quickly.
    if name in _ELSEWHERE:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module 'jobtape' has no attribute {name!r}")
