"""The clock of this process, which tests can move: `jobtape.testing` does.

Who decides by the time what happens to jobs (timers, rates, schedules, retries) reads it here. Leases, and limits for
answers of broker and database, are in real time.
"""

import time as real
from datetime import UTC, datetime

_offset = 0.0


def now() -> datetime:
    """Return the time (UTC)."""
    return datetime.fromtimestamp(time(), UTC) if _offset else datetime.now(UTC)


def time() -> float:
    """Return the seconds since 1970."""
    return real.time() + _offset


def monotonic() -> float:
    """Return seconds that only grow, also when the system's clock is set."""
    return real.monotonic() + _offset


def offset() -> float:
    """Return by how many seconds the clock was moved."""
    return _offset


def move_to(offset: float) -> None:
    """Let the clock be so many seconds ahead of the system's. For tests only."""
    global _offset  # noqa: PLW0603 - there is one clock in a process
    _offset = offset
