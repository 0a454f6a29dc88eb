"""A running Jobtape used over HTTP, from a program that needs neither the broker nor the database.

async with Client("http://127.0.0.1:8000") as client:
    handle = await client.submit(add, x=1, y=2)
    assert await handle.result(timeout=10) == 3
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Unpack, overload

from jobtape.client import encoding as wire
from jobtape.client.answers import job_of, json_object
from jobtape.client.connection import ApiConnection, RequestPolicy
from jobtape.client.errors import NoAnswer, NotConfirmed, NotInTime, Unavailable
from jobtape.client.filters import EventFilters, JobFilters, query_of
from jobtape.client.stream import OUTAGE, EventReader, Since
from jobtape.client.submitted_job import PATIENCE, SubmittedJob
from jobtape.jobs import JobType, Options, R
from jobtape.schemas import plainjson
from jobtape.schemas.delivered_event import DeliveredEvent
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job import Job


def order_of(
    job_type: JobType[Any] | str, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The body of the request. Raises PayloadInvalid."""
    if isinstance(job_type, str):
        order: dict[str, Any] = {"type": job_type, "payload": _payload(job_type, args, kwargs)}
    else:
        order = {"type": job_type.name, "payload": job_type.payload_to_send(*args, **kwargs)}
    said = {
        "queue": options.queue,
        "timeout": options.timeout,
        "delay": options.delay,
        "run_at": None if options.run_at is None else options.run_at.isoformat(),
        "max_attempts": options.max_attempts,
        "labels": dict(options.labels) or None,
        "correlation_id": options.correlation_id,
        "reply_to": options.reply_to,
    }
    return order | {name: value for name, value in said.items() if value is not None}


def _payload(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    match args:
        case ():
            payload = kwargs
        case (Mapping() as given,) if not kwargs:
            payload = dict(given)
        case _:
            raise TypeError(f"the payload of {name!r} is one mapping, or keyword arguments")
    if (reason := plainjson.fault(payload)) is not None:
        raise PayloadInvalid(f"the payload of {name}: {reason}")
    return payload


LONG_POLL: Final = 30.0
"""Seconds that the API is asked to wait with its answer."""
SLACK: Final = 15.0
"""Seconds that an answer may take beyond that."""
PAGE: Final = 100

JobRef = str | Job | SubmittedJob[Any]
"""A job, by its id or itself."""


@dataclass(frozen=True, slots=True)
class Handle(SubmittedJob[R]):
    """What ``Client.submit`` returns."""

    client: "Client"

    async def result(self, timeout: float = PATIENCE) -> R:
        """What the handler returned, as its return annotation says. Raises JobNotSucceeded, NotInTime and ApiError."""
        return self.read(await self.wait(timeout))

    async def wait(self, timeout: float = PATIENCE) -> Job:
        """The job at its end, whichever it is. Raises NotInTime and ApiError."""
        return await self.client.wait(self.id, timeout=timeout)

    async def cancel(self) -> Job:
        """The job as it was when its end was asked for. Raises ApiError."""
        return await self.client.cancel(self.id)


class Client:
    """``url`` and ``api_key`` are those of JOBTAPE_URL and JOBTAPE_API_KEY unless given. Connects when first used.

    ``patience``: seconds during which a request is repeated while the API cannot be reached or cannot answer just now;
    ``outage``: the same for ``events``, once it has begun. Repeating is safe: a submission has an Idempotency-Key, and
    whatever else changes something may be asked twice. Raises WrongAddress when ``url`` is none, or the environment's
    proxy cannot be used, and WrongKey when ``api_key`` cannot be one.
    """

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, patience: float = 30.0, outage: float = OUTAGE
    ) -> None:
        self._connection = ApiConnection(url, api_key, RequestPolicy(patience=patience))
        self._outage = outage

    async def __aenter__(self) -> "Client":
        """Nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """End the connections; whoever still iterates over events gets an error."""
        await self._connection.close()

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._connection.url

    @overload
    async def submit(self, job_type: JobType[R], /, *args: Any, **kwargs: Any) -> Handle[R]: ...
    @overload
    async def submit(self, job_type: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def submit(self, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Submit a job with these arguments of the handler; returns when the broker has it safely.

        ``job_type`` by its name (``"add"``): the payload is one mapping, or the keyword arguments. Raises
        PayloadInvalid before anything is sent, Refused, Unreachable, and NotConfirmed when it is not known whether it
        was accepted.
        """
        return await self.submit_with(Options(), job_type, *args, **kwargs)

    @overload
    async def submit_with(self, options: Options, job_type: JobType[R], /, *args: Any, **kwargs: Any) -> Handle[R]: ...
    @overload
    async def submit_with(self, options: Options, job_type: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def submit_with(
        self, options: Options, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any
    ) -> Handle[Any]:
        """The same, with a queue, time-out, labels or key for this one job."""
        body = wire.json_of(order_of(job_type, options, args, kwargs))
        key = options.idempotency_key or wire.new_key()
        headers = {"Content-Type": "application/json", "Idempotency-Key": wire.key_header(key)}
        try:
            shown = await self._object("POST", "/jobs", content=body, headers=headers)
        except (NoAnswer, Unavailable) as error:
            raise NotConfirmed(
                f"{error}; whether the job was accepted is not known: submit it again with "
                f"Options(idempotency_key={key!r}), which makes it one job",
                key,
            ) from error
        return Handle(job_of(shown), None if isinstance(job_type, str) else job_type, self)

    async def get(self, job: JobRef) -> Job:
        """The job as it is now. Raises NotFound."""
        return job_of(await self._object("GET", _path(job)))

    async def wait(self, job: JobRef, *, timeout: float = PATIENCE) -> Job:
        """The job at its end: succeeded, failed or cancelled. ``timeout`` in seconds; ``math.inf`` waits for ever.

        Given what ``redrive`` returned it is the end of that run: until the tape is read, a GET shows the one before.

        Raises NotInTime (the job goes on), NotFound, and ApiError when the API is away for longer than the patience.
        """
        deadline = time.monotonic() + timeout
        run = _run(job)
        pause = 0.0
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            found, waited = await self._get_when_final(job, min(left, LONG_POLL))
            if found.final and found.run >= run:
                return found
            if time.monotonic() >= deadline:
                raise NotInTime(found, timeout)
            # It may answer at once, about to end, or with an earlier run: it must not be asked in a loop.
            pause = 0.0 if waited and not found.final else min(pause * 1.5 + 0.1, 1.0)
            await asyncio.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))

    async def cancel(self, job: JobRef) -> Job:
        """Ask for its end; the job as it was when asked. Raises NotFound, and Conflict when it has ended."""
        return job_of(await self._object("POST", f"{_path(job)}/cancel"))

    async def redrive(self, job: JobRef) -> Job:
        """Let a job that has ended run again; the job in its next run. Raises NotFound and Conflict."""
        return job_of(await self._object("POST", f"{_path(job)}/redrive"))

    async def events(
        self, *, since: Since = None, **filters: Unpack[EventFilters]
    ) -> AsyncGenerator[DeliveredEvent, None]:
        """What happens, in the tape's order, each event once, without end; a GET of its job shows at least that.

        ``since``: a cursor, behind which it begins; ``"first"``; None for now. It goes on by itself behind the last
        event after every cut. Raises HistoryGone when history behind the position is no longer kept, UnreadableEvent
        for an event of a later version, Refused for filters that the API does not know, and ApiError when the API was
        away too long: ``since=event.cursor`` continues after any of them.
        """
        reader = EventReader(self._connection, query_of(filters), since, outage=self._outage)
        async with aclosing(reader.events()) as received:
            async for one in received:
                yield one

    async def list(self, *, limit: int | None = None, **filters: Unpack[JobFilters]) -> AsyncGenerator[Job, None]:
        """Jobs, newest first, page by page as they are iterated over; at most ``limit``."""
        left = math.inf if limit is None else limit
        place: Mapping[str, str] = {}
        while left > 0:
            query = [*query_of(filters), *place.items(), ("limit", str(int(min(left, PAGE))))]
            page = await self._object("GET", "/jobs", params=query)
            for shown in page["items"]:
                yield job_of(shown)
            left -= len(page["items"])
            if page["next"] is None:
                return
            place = {"cursor": page["next"]}

    async def _get_when_final(self, job: JobRef, seconds: float) -> tuple[Job, bool]:
        """The job at its end, or as it is after so many seconds; and whether the API has waited for it."""
        whole = math.floor(seconds)
        headers = {"Prefer": f"wait={whole}"} if whole else {}
        answer = await self._connection.ask("GET", _path(job), headers=headers, timeout=whole + SLACK)
        found = job_of(json_object(answer, self._connection.policy.hint))
        return found, "preference-applied" in answer.headers

    async def _object(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        return json_object(await self._connection.ask(method, path, **more), self._connection.policy.hint)


def _path(job: JobRef) -> str:
    return wire.job_path(job if isinstance(job, str) else job.id)


def _run(job: JobRef) -> int:
    match job:
        case Job():
            return job.run
        case SubmittedJob():
            return job.job.run
    return 1
