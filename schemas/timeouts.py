"""How long a job may run. The broker closes the channel of a delivery that is not acknowledged within its
acknowledgement timeout (``consumer_timeout``), so everything that a worker does with a job must fit into it.
"""

from collections.abc import Iterable
from typing import Final

from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.job_types.job_type import JobTypeSpec

BEYOND_TIMEOUT: Final = 40.0
"""Seconds that an execution may last beyond its timeout: to start a process (30), to give up or kill a handler that
does not stop (5), and to confirm the outcome.
"""
HOW_TO_FIX: Final = "shorten its timeout, or raise consumer_timeout on the broker and JOBTAPE_ACK_TIMEOUT with it"


def longest_timeout(ack_timeout: float, grace: float) -> float:
    """Return the longest timeout that a job may have, in seconds.

    It is half of what is left of ``ack_timeout`` after ``BEYOND_TIMEOUT`` and the grace time. The other half is for
    waiting in the worker.
    """
    return max(0.0, (ack_timeout - grace - BEYOND_TIMEOUT) / 2)


def longest_wait(ack_timeout: float, grace: float, timeout: float) -> float:
    """Return how many seconds a delivery may wait in a worker and still be executed and settled in time; then it is
    requeued. At least 1.
    """
    return max(1.0, ack_timeout - grace - BEYOND_TIMEOUT - timeout)


def too_long(job_types: Iterable[JobTypeSpec], limit: float) -> list[str]:
    """Return a sentence for each job type that may run longer than ``limit`` (see ``longest_timeout``)."""
    return [
        f"the job type {job_type.name} may run {job_type.timeout:g} s, but only {limit:g} s fit into the broker's "
        "acknowledgement timeout"
        for job_type in job_types
        if job_type.timeout > limit
    ]


def check_timeouts(job_types: Iterable[JobTypeSpec], limit: float) -> None:
    """Raise JobTypeInvalid for a job type that may run longer than ``limit``."""
    for sentence in too_long(job_types, limit):
        raise JobTypeInvalid(f"{sentence}: {HOW_TO_FIX}")
