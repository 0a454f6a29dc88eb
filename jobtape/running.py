"""The producer of this process, once an application has started one; nothing is started on import."""

import os
from typing import TYPE_CHECKING

from jobtape.schemas.errors import JobtapeError

if TYPE_CHECKING:
    from jobtape.producer.service import Producer

_running: "list[tuple[Producer, int]]" = []
"""Each with the id of the process in which it was started."""


def producer() -> "Producer":
    """The producer that ``jobtape.lifespan`` (or the API itself) has started last. Raises JobtapeError without one."""
    ours = [started for started, pid in _running if pid == os.getpid()]
    if not ours and _running:
        raise JobtapeError(
            "Jobtape runs in the process that this one was forked from, and two processes cannot share a connection: "
            "enter jobtape.lifespan here, or use jobtape.SyncClient"
        )
    if not ours:
        raise JobtapeError(
            "no Jobtape is running in this process: give your application lifespan=jobtape.lifespan, "
            "or call it within `async with jobtape.lifespan(job_types=[...]):`"
        )
    return ours[-1]


def enter(started: "Producer") -> None:
    """From now on ``producer()`` is ``started``."""
    _running.append((started, os.getpid()))


def leave(stopped: "Producer") -> None:
    """``stopped`` is no longer to be used."""
    _running[:] = [each for each in _running if each[0] is not stopped]
