"""Requests with ``Prefer: wait=N`` (RFC 7240), which wait for an outcome instead of polling.

Theory of operation. No wake-up may be lost between reading the job and going to sleep. So a request first registers,
then reads the job, and sleeps only if the job does not satisfy it: the read sees what was committed before, and what
comes later wakes the request. A notice of the projector only wakes; the answer always comes from the view. A waiting
request takes no thread and no database connection. Notices may be lost, so it reads the job every second beside them,
and more often while none arrive. A job that was just submitted is hardly in the view yet, so its first read comes a
moment later, unless a notice comes before: it would only delay those who are executing and folding the job.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request

from jobtape.producer.live.event_stream import gone
from jobtape.producer.live.follower import AWAY_PAUSE
from jobtape.producer.live.listeners import Listeners
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.service import JobService
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import ENDINGS, Job

HEADER: Final = "Prefer"
APPLIED: Final = "Preference-Applied"
LONGEST_POLL: Final = 1.0
"""Seconds between two reads of the job beside notices. While none arrive it is ``FIRST_POLL`` at first, and grows by
the factor ``SLOWER`` up to here."""
FIRST_POLL, SLOWER = 0.02, 1.3

_LONGEST: Final = 8192
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PREFERENCE: Final = re.compile(rf"\s*({_WORD})(?:\s*=\s*({_WORD}|{_QUOTED})?)?\s*(?:;|$)")
_ELEMENT: Final = re.compile(rf"(?:{_QUOTED}|[^,\"])+")

Waited = tuple[Job, dict[str, str]]
"""The job as it is now, and the response header for a preference that was applied."""


def preferred_wait(request: Request, longest: int) -> int | None:
    """Return the seconds that a request prefers to wait, at most ``longest``; None when it has no valid preference.

    Of several preferences the first counts, and one that is not understood is ignored (RFC 7240).
    """
    header = ",".join(request.headers.getlist(HEADER))
    if not header or longest <= 0 or len(header) > _LONGEST:
        return None
    for element in _ELEMENT.findall(header):
        preference = _PREFERENCE.match(element)
        if preference is not None and preference[1].lower() == "wait":
            seconds = (preference[2] or "").strip('"')
            return min(int(seconds[:10]), longest) if seconds.isascii() and seconds.isdigit() else None
    return None


async def wait_as_preferred(
    service: JobService,
    listeners: Listeners,
    job: Job,
    request: Request,
    *,
    enough: Callable[[Job], bool] | None = None,
    new: bool = False,
) -> Waited:
    """Wait until ``enough(job)``, or the job's end, as long as the request prefers. ``new``: it was just submitted.

    Returns earlier when the client has left or the process stops. The header is missing without a preference, or when
    too many listen already.
    """
    if (seconds := preferred_wait(request, service.limits.max_wait)) is None:
        return job, {}
    applied = {APPLIED: f"wait={seconds}"}
    if job.final if enough is None else enough(job):
        return job, applied
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        with listeners.admit("wait"):
            leaving = asyncio.create_task(gone(request.receive), name="a client that waits")
            try:
                found = await _wait(service, listeners, job.id, enough, leaving, deadline, read=not new)
            finally:
                leaving.cancel()
    except TooBusy:
        return job, {}
    return found or job, applied


async def _wait(
    service: JobService,
    listeners: Listeners,
    job_id: str,
    enough: Callable[[Job], bool] | None,
    leaving: "asyncio.Task[None]",
    deadline: float,
    *,
    read: bool,
) -> Job | None:
    """Return the job as it was read last; None when the view did not answer. ``read``: at once, not after a moment."""
    now = asyncio.get_running_loop().time
    wanted = Selection(job=job_id, events=ENDINGS if enough is None else frozenset())
    job: Job | None = None
    pause = FIRST_POLL
    while True:
        with listeners.requests.sleeping(wanted) as woken:
            either: set[asyncio.Future[Any]] = {woken, leaving}
            if not read:
                read = True
                timeout = min(FIRST_POLL, deadline - now())
                await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                continue
            pause = LONGEST_POLL if listeners.commits.live else min(pause * SLOWER, LONGEST_POLL)
            timeout = min(pause, deadline - now())
            try:
                job = await service.job_in_view(job_id)
            except (ViewUnavailable, TooBusy):
                timeout = min(AWAY_PAUSE, deadline - now())
            satisfied = job is not None and (job.final if enough is None else enough(job))
            if satisfied or now() >= deadline or leaving.done() or listeners.tail.ended:
                return job
            await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
