"""What a handler knows about the execution it runs in."""

import logging
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from jobtape.schemas.job import Progress


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to a parameter annotated ``Context``.

    ``report`` takes the progress to whoever publishes it, from any thread; a handler calls ``progress``.
    """

    job_id: str
    job_type: str
    run: int
    attempt: int
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    report: Callable[[Progress], None]
    shadow: bool = False
    """Whether this is a shadow run: the result is only compared, so leave alone what is outside."""
    correlation_id: str | None = None
    """The job's, which jobs that the handler submits get too."""
    event_id: str | None = None
    """The event that this execution answers."""

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts and executions of one run: hand it on to services that know such keys."""
        return f"{self.job_id}/{self.run}"

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Report how far the job is: ``fraction`` from 0 to 1 (clamped), with a few words. Never blocks; when called
        often, only the latest is published, a few times a second.
        """
        clamped = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
        self.report(Progress(fraction=clamped, message=None if message is None else message[:200]))


current: Final[ContextVar[Context | None]] = ContextVar("jobtape_context", default=None)
"""The execution that this code runs in; None outside a handler."""
