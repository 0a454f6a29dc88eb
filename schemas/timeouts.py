"""How long a job may run: the broker closes the channel of a delivery that is not acknowledged within its
acknowledgement time-out (``consumer_timeout``), and everything that a worker does with a job must fit.
"""

from collections.abc import Iterable
from typing import Final

from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.job_types.job_type import JobTypeSpec

BEYOND_TIMEOUT: Final = 40.0
"""Seconds that an execution may last beyond its time-out: a process is started for it (30), a handler that heeds no
cancelling is given up or killed (5), the outcome is confirmed."""
WAY_OUT: Final = "shorten its timeout, or raise consumer_timeout on the broker and JOBTAPE_ACK_TIMEOUT with it"


def longest_timeout(ack_timeout: float, grace: float) -> float:
    """The longest time-out that a job may have, in seconds.

    Of the acknowledgement time-out (``ack_timeout``) a worker keeps what an execution may last beyond its time-out, and
    the grace time; of the rest a job may run half, so that it may wait in the worker for its turn as long.
    """
    return max(0.0, (ack_timeout - grace - BEYOND_TIMEOUT) / 2)


def longest_wait(ack_timeout: float, grace: float, timeout: float) -> float:
    """How long a delivery may wait in a worker, in seconds, and still be executed and settled in time; it is given back
    then. At least a second, also where nothing fits.
    """
    return max(1.0, ack_timeout - grace - BEYOND_TIMEOUT - timeout)


def misfits(job_types: Iterable[JobTypeSpec], limit: float) -> list[str]:
    """A sentence on each job type that may run longer than ``limit`` (``longest_timeout``)."""
    return [
        f"the job type {job_type.name} may run {job_type.timeout:g} s, and {limit:g} s fit the broker's "
        "acknowledgement time-out"
        for job_type in job_types
        if job_type.timeout > limit
    ]


def check_timeouts(job_types: Iterable[JobTypeSpec], limit: float) -> None:
    """Raises JobTypeInvalid for a job type whose time-out the broker would not wait for."""
    for sentence in misfits(job_types, limit):
        raise JobTypeInvalid(f"{sentence}: {WAY_OUT}")
