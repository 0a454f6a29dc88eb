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
    HistoryGone,
    JobtapeError,
    LogMissing,
    PayloadInvalid,
    UnknownJobType,
    ViewUnavailable,
)
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.retry import Crashed, Fail, Retry, RetryPolicy

if TYPE_CHECKING:
    from jobtape.app import create_app, lifespan
    from jobtape.client import Client, SyncClient

__all__ = [
    "BrokerUnavailable",
    "Client",
    "Context",
    "Crashed",
    "Fail",
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
    "SyncClient",
    "UnknownJobType",
    "ViewUnavailable",
    "create_app",
    "job",
    "lifespan",
]


def __getattr__(name: str) -> Any:
    # Workers import their jobs through here and need no web framework for it.
    if name in ("create_app", "lifespan"):
        from jobtape import app  # noqa: PLC0415

        return getattr(app, name)
    if name in ("Client", "SyncClient"):
        from jobtape import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module 'jobtape' has no attribute {name!r}")
