"""What the built-in job types have in common."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from jobtape.consumer.slices import Interrupted, Slice
from jobtape.schemas.context import Context
from jobtape.schemas.errors import BrokerUnavailable, LogMissing, ViewUnavailable
from jobtape.schemas.jobtype import BUILTIN_QUEUE
from jobtape.schemas.retry import Crashed, Retry, RetryPolicy
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings

TIMEOUT: Final = 600.0
SLICE: Final = 500.0
"""Seconds after which a job goes on in its next attempt, so that none comes near its time-out."""
ANEW: Final = RetryPolicy(
    max_attempts=1000, first=1.0, longest=30.0, on=(Crashed, ViewUnavailable, BrokerUnavailable, LogMissing)
)
OURS: Final[dict[str, Any]] = {"queue": BUILTIN_QUEUE, "timeout": TIMEOUT, "isolate": True, "retry": ANEW}
"""What ``@job`` is told of each."""


@contextmanager
def slice_of(ctx: Context, what: str, share: float = 1.0) -> Iterator[Slice]:
    """A slice of time for the work inside, which counts ``what``; where it ends the job goes on in another attempt."""
    try:
        yield Slice(ctx.progress, time.monotonic() + SLICE, what, share)
    except Interrupted as error:
        raise Retry(0.0, str(error)) from None


def topology_of(settings: Settings) -> Topology:
    """What there is on the broker, as the built-in jobs need it."""
    return settings.topology.with_queues([BUILTIN_QUEUE])
