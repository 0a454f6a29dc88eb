"""What takes submissions in this process, once something has started one; nothing is started on import.

An application's lifespan, a worker and the process of an isolated handler enter here what they submit with. ``submit``
of a job type finds it, from whatever thread or event loop it is called.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Any, Final, Protocol

from jobtape.loop_calls import Handover, Lost, NotBegun
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.job import Job

NONE_RUNS: Final = (
    "no Jobtape is running in this process: give your application lifespan=jobtape.lifespan, or call it within "
    "`async with jobtape.lifespan(job_types=[...]):`, or use jobtape.Client or jobtape.SyncClient"
)
START_LIMIT: Final = 10.0
"""Seconds that a submission waits for the loop that has the connection."""


class Submitter(Protocol):
    """What publishes on the loop on which it was started."""

    @property
    def job_types(self) -> Mapping[str, Any]:
        """Those that may be submitted."""

    @property
    def submit(self) -> Callable[..., Awaitable[Job]]:
        """``submit(type, payload, **options)`` accepts a job: it is on the tape and on its queue when this returns."""


class Installation(Protocol):
    """Something that takes submissions from any thread and loop of this process."""

    @property
    def name(self) -> str:
        """Which broker and namespace it submits to: the same for all that submit to the same."""

    @property
    def job_types(self) -> Container[str]:
        """The names of those that it takes."""

    def is_here(self) -> bool:
        """Whether the caller runs on the event loop that has the connection."""

    async def submit(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Job:  # noqa: A002
        """Accept a job. ``options`` are the keywords of ``Submitter.submit``."""

    def submit_sync(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Job:  # noqa: A002
        """``submit``, which blocks the calling thread."""


class OnLoop:
    """An ``Installation``: ``submitter``, which runs on the running loop. ``serves``: whether it is a whole
    ``Producer``, with which the REST API can answer.
    """

    def __init__(
        self, name: str, submitter: Submitter, *, serves: bool = False, start_limit: float = START_LIMIT
    ) -> None:
        self.name = name
        self.submitter = submitter
        self.serves = serves
        self.handover = Handover(start_limit=start_limit)

    @property
    def job_types(self) -> Container[str]:
        """The names of those that it takes."""
        return self.submitter.job_types

    def is_here(self) -> bool:
        """Whether the caller runs on the event loop that has the connection."""
        return self.handover.is_here()

    async def submit(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Job:  # noqa: A002
        """Accept a job, on the loop that has the connection. Cancelling this cancels that."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise JobtapeError(
                "nothing was submitted: no asyncio event loop runs here to await it on; call submit_sync(...) instead"
            ) from None
        try:
            return await self.handover.call(self.submitter.submit, type, payload, **options)
        except NotBegun as error:
            raise _not_taken(error) from None
        except Lost:
            raise _unknown() from None

    def submit_sync(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Job:  # noqa: A002
        """``submit``, which blocks the calling thread. Refused on the loop that has the connection."""
        if self.is_here():
            raise JobtapeError(
                "nothing was submitted: submit_sync would block the very event loop that has to do it; "
                "`await job_type.submit(...)` here, or call submit_sync from a thread"
            )
        try:
            return self.handover.call_blocking(self.submitter.submit, type, payload, **options)
        except NotBegun as error:
            raise _not_taken(error) from None
        except Lost:
            raise _unknown() from None


_entered: list[tuple[Installation, int]] = []
"""Each with the id of the process in which it was entered."""


def enter(installation: Installation) -> None:
    """From now on submissions of this process may go to ``installation``."""
    _entered.append((installation, os.getpid()))


def leave(installation: Installation) -> None:
    """``installation`` takes no more; submissions under way end as unknown."""
    _entered.remove(next(each for each in _entered if each[0] is installation))
    if isinstance(installation, OnLoop):
        installation.handover.close()


def installation_for(job_type: str) -> Installation:
    """Where a submission of ``job_type`` from here goes: to what runs on this very event loop, else to the only
    installation of this process, the newest first, and of several to one that has the job type.

    Raises JobtapeError when there is none, or when several on other loops could be meant.
    """
    alive = _alive()
    here = [each for each in alive if each.is_here()]
    having = [each for each in here if job_type in each.job_types] or here
    if having:
        return having[0]
    having = [each for each in alive if job_type in each.job_types] or alive
    if len({each.name for each in having}) > 1:
        raise JobtapeError(
            f"nothing was submitted: {job_type!r} could go to several installations that run in this process "
            f"({', '.join(sorted({each.name for each in having}))}), and this thread or event loop does not say which: "
            "await it on the event loop of the one that is meant, or use jobtape.Client with its url"
        )
    return having[0]


def name() -> str:
    """The name of the newest installation that runs in this process; empty when there is none."""
    return next((installation.name for installation, pid in reversed(tuple(_entered)) if pid == os.getpid()), "")


def producer() -> Any:
    """The ``Producer`` that ``jobtape.lifespan`` (or the API itself) has started last: on this event loop, if there is
    one. It is to be used on its own loop alone. Raises JobtapeError without one.
    """
    return serving().submitter


def serving() -> OnLoop:
    """The installation whose submitter is a whole ``Producer``, as ``producer`` finds it."""
    whole = [each for each in _alive() if isinstance(each, OnLoop) and each.serves]
    if not whole:
        raise JobtapeError(NONE_RUNS)
    return next((each for each in whole if each.is_here()), whole[0])


def _alive() -> list[Installation]:
    ours = [installation for installation, pid in reversed(tuple(_entered)) if pid == os.getpid()]
    if ours:
        return ours
    if _entered:
        raise JobtapeError(
            "nothing was submitted: Jobtape runs in the process that this one was forked from, and two processes "
            "cannot share a connection: enter jobtape.lifespan here, or use jobtape.SyncClient"
        )
    raise JobtapeError(NONE_RUNS)


def _not_taken(error: NotBegun) -> JobtapeError:
    return JobtapeError(
        f"nothing was submitted: Jobtape runs on another event loop of this process, and {error}. Submit while "
        "jobtape.lifespan is entered, and never let its loop wait for the thread that submits"
    )


def _unknown() -> BrokerUnavailable:
    return BrokerUnavailable(
        "not confirmed: Jobtape ended in this process, or its event loop did, while the job was submitted. It may or "
        "may not have been recorded: look for it before you submit it again, or submit under an idempotency key"
    )
