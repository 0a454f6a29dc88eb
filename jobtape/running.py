"""The producer of this process, once an application has started one; nothing is started on import."""

from typing import TYPE_CHECKING

from jobtape.schemas.errors import JobtapeError

if TYPE_CHECKING:
    from jobtape.producer.service import Producer

_running: "list[Producer]" = []


def producer() -> "Producer":
    """The producer that ``jobtape.lifespan`` (or the API itself) has started last. Raises JobtapeError without one."""
    if not _running:
        raise JobtapeError(
            "no Jobtape is running in this process: give your application lifespan=jobtape.lifespan, "
            "or call it within `async with jobtape.lifespan(job_types=[...]):`"
        )
    return _running[-1]


def enter(started: "Producer") -> None:
    """From now on ``producer()`` is ``started``."""
    _running.append(started)


def leave(stopped: "Producer") -> None:
    """``stopped`` is no longer to be used."""
    _running.remove(stopped)
