"""What the built-in job types have in common."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.schemas.context import Context
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, ViewUnavailable
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.retry import Crashed, Retry, RetryPolicy
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings

TIMEOUT: Final = 600.0
SLICE: Final = 500.0
"""Seconds after which a job goes on in its next attempt, so that none comes near its time-out."""
SPARE: Final = 50.0
"""Seconds behind the slice in which something that was begun may still end."""
RETRY: Final = RetryPolicy(
    max_attempts=1000,
    first=1.0,
    longest=30.0,
    # A broker that was restarted may deliver a job twice. Who loses tries again, and finds it done or goes on: a
    # failure would close the run, and the success of the other would count no more.
    on=(Crashed, ViewUnavailable, BrokerUnavailable, TapeMissing, TakenOver),
)
OURS: Final[dict[str, Any]] = {"queue": BUILTIN_QUEUE, "timeout": TIMEOUT, "isolate": True, "retry": RETRY}
"""What ``@job`` gets for each."""


@contextmanager
def slice_of(ctx: Context, what: str, share: float = 1.0) -> Iterator[TaskSlice]:
    """A slice of time for the work inside, which counts ``what``; where it ends the job goes on in another attempt.

    Raises BrokerUnavailable for whatever AMQP's own libraries raise, so that the job comes again.
    """
    # Imported here: who only submits the job needs no AMQP.
    from jobtape.broker.link import BROKER_ERRORS, reason_of  # noqa: PLC0415
    from jobtape.broker.tasks import translate_cancellation  # noqa: PLC0415

    try:
        with translate_cancellation():
            yield TaskSlice(ctx.progress, time.monotonic() + SLICE, what, share, SPARE)
    except Interrupted as error:
        raise Retry(0.0, str(error)) from None
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(
            f"the broker was not there for it ({reason_of(error)}): it goes on by itself when the broker answers; "
            "`jobtape doctor` says what is wrong"
        ) from error


def topology_of(settings: Settings) -> Topology:
    """What there is on the broker, as the built-in jobs need it."""
    return settings.topology.with_queues([BUILTIN_QUEUE])
