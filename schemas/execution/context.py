"""The context of an execution, which a handler gets."""

import logging
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from jobtape.schemas.job import Job, Progress


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

    flow: str | None = None
    """The flow or job of which this job is a node or a follow-up, or that spawned it."""
    depth: int = 0
    """How many jobs and flows are above this one: those of which it is a follow-up or a node, or that spawned it."""

    traceparent: str | None = None
    """The W3C trace context of this execution, for calls to other services; None if the submission had none."""

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

    def then(self, job_type: Any, children: Any = (), /, **more: Any) -> Any:
        """End this execution with the jobs that follow it: ``return ctx.then(merge, {"a": step(fetch, "…")})``.

        ``children``, steps by name or in a list, begin at once. ``job_type`` begins when all have ended, and its
        outcome becomes that of this job, which is ``held`` meanwhile. If its handler has a parameter ``results``, it
        gets their results: a mapping or a list as ``children`` is. The jobs that follow exist if and only if this
        outcome is accepted, once each, whatever is repeated or killed.

        ``wait``: a ``Signal`` or several, which have to come too. A parameter ``signal`` gets the payload of the
        signal, ``signals`` those of several, by name; None if the time was over. ``on``: ``"success"`` begins
        ``job_type`` only if all children have succeeded; otherwise this job fails. ``"failure"`` and ``"done"``
        as for ``Flow.add``. ``stop``: that of ``Flow``. ``options``: those of ``job_type``. Everything
        else is for its handler.

        Raises PayloadInvalid for arguments that do not fit. What else does not fit fails the job when it is recorded.
        """
        # By name: this module is pure.
        return import_module("jobtape.follow_ups").follow_ups(job_type, children, **more)

    async def spawn(self, job_type: Any, /, *args: Any, key: str, **kwargs: Any) -> Job:
        """Submit a job with the handler's arguments, once in this run for each ``key``: letters, digits, ``_``, ``.``
        and ``-``, at most 64.

        A second execution spawns the same job, which is one. ``options``: as for ``submit_with``. It needs a live
        projector, which places its work. In a shadow run nothing is submitted. Raises what ``submit`` raises.
        """
        # By name: this module is pure.
        job: Job = await import_module("jobtape.follow_ups").spawn(self, job_type, args, key, kwargs)
        return job

    def spawn_sync(self, job_type: Any, /, *args: Any, key: str, **kwargs: Any) -> Job:
        """Submit a job as ``spawn`` does, and block the thread, in a ``def`` handler."""
        job: Job = import_module("jobtape.follow_ups").spawn_sync(self, job_type, args, key, kwargs)
        return job

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Report progress: ``fraction`` from 0 to 1 (clamped), and a message of at most 200 characters. Never blocks.
        Only the latest report is published, a few times a second.
        """
        clamped = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
        self.report(Progress(fraction=clamped, message=None if message is None else message[:200]))


current: Final[ContextVar[Context | None]] = ContextVar("jobtape_context", default=None)
"""The context of the running handler; None outside a handler."""
