"""The installations that take submissions in this process; nothing is started on import.

An application's lifespan, a worker and the process of an isolated handler register here what they submit with.
``submit`` of a job type finds it from any thread or event loop.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from jobtape.process.loop_calls import CallLost, CallNotStarted, LoopCaller
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.job import Job
from jobtape.schemas.submission import Spawned, Submission
from jobtape.telemetry import tracing

T = TypeVar("T")

NONE_RUNS: Final = (
    "no Jobtape is running in this process: give your application lifespan=jobtape.lifespan, or call it within "
    "`async with jobtape.lifespan(job_types=[...]):`, or use jobtape.Client or jobtape.SyncClient; "
    "in a test, use jobtape.testing.memory"
)


class JobSubmitter(Protocol):
    """Publishes jobs on the event loop on which it was started."""

    @property
    def job_types(self) -> Mapping[str, Any]:
        """The job types that may be submitted."""

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job. Returns when the job is on the tape and on its queue."""


class Installation(Protocol):
    """Takes submissions from any thread and event loop of this process."""

    name: str
    """The broker and namespace that it submits to; equal for all that submit to the same."""
    job_types: Container[str]
    """The names of the job types that it takes."""

    def is_here(self) -> bool:
        """Return whether the caller runs on the event loop that has the connection."""

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job. ``causation_id``: the id of the event that the submission answers.

        ``spawned``: which job of the calling handler it is.
        """

    def submit_sync(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job as ``submit`` does, and block the calling thread."""


class LoopInstallation(Installation):
    """An installation that submits with ``submitter`` on the running loop.

    ``serves``: whether ``submitter`` is a ``Producer``, with which the REST API can answer. ``start_limit``: seconds
    for which a submission waits for the loop. ``covers``: whether it takes the submissions for those before it too.
    """

    def __init__(
        self, name: str, submitter: JobSubmitter, *, serves: bool = False, start_limit: float, covers: bool = False
    ) -> None:
        self.name = name
        self.job_types = submitter.job_types
        self.submitter = submitter
        self.serves = serves
        self.covers = covers
        self.caller = LoopCaller(start_limit=start_limit)

    def is_here(self) -> bool:
        return self.caller.is_here()

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise JobtapeError(
                "nothing was submitted: no asyncio event loop runs here to await it on; call submit_sync(...) instead"
            ) from None
        return await self.call(self.submitter.submit, submission, idempotency_key, causation_id, spawned)

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call what publishes jobs, ``await function(*args)``, on the loop that has the connection.

        Raises BrokerUnavailable, and JobtapeError when nothing was done.
        """
        with _explained():
            return await self.caller.call(_traced(function), *args)

    def submit_sync(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        if self.is_here():
            raise JobtapeError(
                "nothing was submitted: submit_sync would block the very event loop that has to do it; "
                "`await job_type.submit(...)` here, or call submit_sync from a thread"
            )
        with _explained():
            return self.caller.call_blocking(
                _traced(self.submitter.submit), submission, idempotency_key, causation_id, spawned
            )


_registered: list[tuple[Installation, int]] = []
"""Each installation with the id of the process that registered it."""


def register(installation: Installation) -> None:
    """Allow submissions of this process to go to ``installation``."""
    _registered.append((installation, os.getpid()))


def unregister(installation: Installation) -> None:
    """Send no more submissions to ``installation``. Its unfinished ones raise BrokerUnavailable."""
    _registered.remove(next(each for each in _registered if each[0] is installation))
    if isinstance(installation, LoopInstallation):
        installation.caller.close()


def installation_for(job_type: str) -> Installation:
    """Return the installation for a submission of ``job_type`` from the calling code.

    It is the one on this event loop, else the only one in this process. Of several, one that has the job type is
    preferred, and the newest. Raises JobtapeError when there is none, or when several on other loops are possible.
    """
    usable = _usable()
    here = [each for each in usable if each.is_here()]
    matching = [each for each in here if job_type in each.job_types] or here
    if matching:
        return matching[0]
    matching = [each for each in usable if job_type in each.job_types] or usable
    if len({each.name for each in matching}) > 1:
        raise JobtapeError(
            f"nothing was submitted: {job_type!r} could go to several installations that run in this process "
            f"({', '.join(sorted({each.name for each in matching}))}), and this thread or event loop does not say "
            "which: await it on the event loop of the one that is meant, or use jobtape.Client with its url"
        )
    return matching[0]


def name() -> str:
    """Return the name of the newest installation in this process; empty when there is none."""
    return next((each.name for each in _own()), "")


def serving() -> LoopInstallation:
    """Return the newest installation with a ``Producer``, preferably the one on this event loop.

    The producer may only be used on its own loop. Raises JobtapeError when there is none.
    """
    found = [each for each in _usable() if isinstance(each, LoopInstallation) and each.serves]
    if not found:
        raise JobtapeError(NONE_RUNS)
    return next((each for each in found if each.is_here()), found[0])


def _own() -> list[Installation]:
    """Return the installations that this process registered, the newest first, up to one that covers the others."""
    found: list[Installation] = []
    for installation, pid in reversed(tuple(_registered)):
        if pid == os.getpid():
            found.append(installation)
            if isinstance(installation, LoopInstallation) and installation.covers:
                break
    return found


def _usable() -> list[Installation]:
    if own := _own():
        return own
    if _registered:
        raise JobtapeError(
            "nothing was submitted: Jobtape runs in the process that this one was forked from, and two processes "
            "cannot share a connection: enter jobtape.lifespan here, or use jobtape.SyncClient"
        )
    raise JobtapeError(NONE_RUNS)


def _traced(function: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Return ``function`` as it is called in the caller's trace context, because other variables are not passed on."""
    context = tracing.traceparent()
    if context is None:
        return function

    async def call(*args: Any) -> T:
        with tracing.within(context):
            return await function(*args)

    return call


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of a call on another loop into those of a submission."""
    try:
        yield
    except CallNotStarted as error:
        raise JobtapeError(
            f"nothing was submitted: Jobtape runs on another event loop of this process, and {error}. Submit while "
            "jobtape.lifespan is entered, and never let its loop wait for the thread that submits"
        ) from None
    except CallLost:
        raise BrokerUnavailable(
            "not confirmed: Jobtape ended in this process, or its event loop did, while the job was submitted. It may "
            "or may not have been recorded: look for it before you submit it again, or submit under an idempotency key"
        ) from None
