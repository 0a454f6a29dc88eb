"""What the built-in job types have in common."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.process import garbage
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, ViewUnavailable
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.retry import Crashed, Retry, RetryPolicy
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings

TIMEOUT: Final = 600.0
SLICE: Final = 500.0
"""Seconds after which a job continues in its next attempt, so that it never reaches its timeout."""
SPARE: Final = 50.0
"""Seconds after the slice in which a step that was begun may end."""
RETRY: Final = RetryPolicy(
    max_attempts=1000,
    first=1.0,
    longest=30.0,
    # A broker that was restarted may deliver a job twice. The execution that was taken over is retried, and finds the
    # work done or continues it. If it failed instead, the run would end, and the other one's success would not count.
    on=(Crashed, ViewUnavailable, BrokerUnavailable, TapeMissing, TakenOver),
)
BUILTIN: Final[dict[str, Any]] = {"queue": BUILTIN_QUEUE, "timeout": TIMEOUT, "isolate": True, "retry": RETRY}
"""The arguments of ``@job`` for each built-in job type."""


@contextmanager
def slice_of(ctx: Context, what: str, share: float = 1.0) -> Iterator[TaskSlice]:
    """Give a slice of time for the work in the block. When it ends, the job continues in another attempt.

    ``what``: what the progress counts. ``share``: the part of the job's progress that this slice can reach. Raises
    BrokerUnavailable for all errors of the AMQP libraries, so that the job is retried.
    """
    # Imported here: a program that only submits the job needs no AMQP.
    from jobtape.broker.link import BROKER_ERRORS, reason_of  # noqa: PLC0415
    from jobtape.broker.tasks import translate_cancellation  # noqa: PLC0415

    garbage.collect_rarely()  # a built-in job has a process of its own
    try:
        with translate_cancellation():
            yield TaskSlice(ctx.progress, time.monotonic() + SLICE, what, share, SPARE)
    except Interrupted as error:
        raise Retry(0.0, str(error)) from None
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(
            f"the broker does not answer ({reason_of(error)}): the job continues automatically when it does; "
            "`jobtape doctor` says what is wrong"
        ) from error


def topology_of(settings: Settings) -> Topology:
    """Return the topology that the built-in jobs need."""
    return settings.topology.with_queues([BUILTIN_QUEUE])
