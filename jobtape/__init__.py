"""Jobs for FastAPI on a durable tape of events in RabbitMQ.

    from jobtape import Context, job

    @job("add")
    def add(x: int, y: int) -> int:
        return x + y

The import starts nothing and connects to nothing.
"""

from typing import TYPE_CHECKING, Any

from jobtape.jobs import JobType, job
from jobtape.schemas.errors import (
    BrokerUnavailable,
    EventsMissed,
    HistoryGone,
    JobtapeError,
    JobTypeInvalid,
    PayloadInvalid,
    QueueFull,
    ResultInvalid,
    SubmissionInvalid,
    SubscriptionRefused,
    TapeMissing,
    UnknownJobType,
    ViewUnavailable,
)
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.results import Results
from jobtape.schemas.execution.retry import Crashed, Fail, Retry, RetryPolicy
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.batches import Batch
from jobtape.schemas.job_types.declared_gates import Concurrency, Debounce, Rate, Unique
from jobtape.schemas.job_types.schedules import Cron, Every
from jobtape.schemas.submission import Options

if TYPE_CHECKING:
    from jobtape.app import create_app, lifespan
    from jobtape.client import Client, SyncClient
    from jobtape.flows import Flow, chain, item, previous, step, step_with
    from jobtape.outbox.tables import inbox_table, outbox_table
    from jobtape.producer.service.errors import PayloadTooLarge
    from jobtape.schemas.flows.follow_ups import Signal
    from jobtape.schemas.messages.delivered_event import DeliveredEvent
    from jobtape.subscribing import subscribe
    from jobtape.tasks import JobTasks

__all__ = [
    "Batch",
    "BrokerUnavailable",
    "Client",
    "Concurrency",
    "Context",
    "Crashed",
    "Cron",
    "Debounce",
    "DeliveredEvent",
    "EventsMissed",
    "Every",
    "Fail",
    "Flow",
    "HistoryGone",
    "Job",
    "JobState",
    "JobTasks",
    "JobType",
    "JobTypeInvalid",
    "JobtapeError",
    "Options",
    "PayloadInvalid",
    "PayloadTooLarge",
    "QueueFull",
    "Rate",
    "ResultInvalid",
    "Results",
    "Retry",
    "RetryPolicy",
    "Signal",
    "SubmissionInvalid",
    "SubscriptionRefused",
    "SyncClient",
    "TapeMissing",
    "Unique",
    "UnknownJobType",
    "ViewUnavailable",
    "chain",
    "create_app",
    "inbox_table",
    "item",
    "job",
    "lifespan",
    "outbox_table",
    "previous",
    "step",
    "step_with",
    "subscribe",
]


_ELSEWHERE = {
    "Client": "jobtape.client",
    "DeliveredEvent": "jobtape.schemas.messages.delivered_event",
    "Flow": "jobtape.flows",
    "JobTasks": "jobtape.tasks",
    "PayloadTooLarge": "jobtape.producer.service.errors",
    "Signal": "jobtape.schemas.flows.follow_ups",
    "SyncClient": "jobtape.client",
    "chain": "jobtape.flows",
    "create_app": "jobtape.app",
    "inbox_table": "jobtape.outbox.tables",
    "item": "jobtape.flows",
    "lifespan": "jobtape.app",
    "outbox_table": "jobtape.outbox.tables",
    "previous": "jobtape.flows",
    "step": "jobtape.flows",
    "step_with": "jobtape.flows",
    "subscribe": "jobtape.subscribing",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, because workers need no web framework and the command line must start quickly.
    if name in _ELSEWHERE:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module 'jobtape' has no attribute {name!r}")
