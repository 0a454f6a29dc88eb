"""The context of an execution, which a handler gets."""

import logging
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from jobtape.schemas.job import Progress


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler knows about its execution: the argument for the parameter that is annotated ``Context``."""

    job_id: str
    """The job's id."""
    job_type: str
    """The name of the job type."""
    run: int
    """The number of the run. It starts at 1 and goes up with each redrive."""
    attempt: int
    """The number of the attempt. It starts at 1 in each run and goes up with each retry."""
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    """A logger that adds the job's id to each record."""
    report: Callable[[Progress], None]
    """Passes progress to the publisher, from any thread. Handlers call ``progress``."""
    shadow: bool = False
    """Whether this is a shadow run. Its result is only compared, so change nothing outside the handler."""
    correlation_id: str | None = None
    """The job's correlation id. Jobs that the handler submits get it too."""
    event_id: str | None = None
    """The id of the event that put the work on its queue: ``submitted`` or ``placed``."""

    fence: int | None = None
    """Of a job with an ordering key or limits: a number that grows with each placement for the same key or slot. A
    store that refuses writes with a lower number than it has seen keeps what a later job wrote.
    """

    @property
    def idempotency_key(self) -> str:
        """The same key for all attempts and executions of one run, for services that take idempotency keys."""
        return f"{self.job_id}/{self.run}"

    def once(self, session: Any, step: str = "") -> Any:
        """Return a block whose value is true in the first execution of this run only: ``async with ctx.once(session) as
        first:``, or ``with`` for a ``Session`` or ``Connection`` of SQLAlchemy.

        It inserts a row into the table of ``jobtape.inbox_table`` in your transaction, so the row and your effect are
        committed together or not at all. What you set as ``first.result`` is recorded, and later executions find it
        there. Give each of several blocks in one handler another ``step``. In a shadow run the value is never true.
        Raises JobtapeError for another kind of session, and errors of the database.
        """
        # By name: this module is pure, and most handlers need no database.
        return import_module("jobtape.outbox.inbox").Once(self, session, step)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Report progress: ``fraction`` from 0 to 1 (clamped), and a message of at most 200 characters. Never blocks.
        Only the latest report is published, a few times a second.
        """
        clamped = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
        self.report(Progress(fraction=clamped, message=None if message is None else message[:200]))


current: Final[ContextVar[Context | None]] = ContextVar("jobtape_context", default=None)
"""The context of the running handler; None outside a handler."""
