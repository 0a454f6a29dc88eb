"""The asynchronous client: uses the API over HTTP and needs neither the broker nor the database.

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
from jobtape.jobs import JobType, R
from jobtape.schemas import plainjson
from jobtape.schemas.delivered_event import DeliveredEvent
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job import Job
from jobtape.schemas.submission import Options, submission_body


def _payload(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    match args:
        case ():
            payload = kwargs
        case (Mapping() as mapping,) if not kwargs:
            payload = dict(mapping)
        case _:
            raise TypeError(f"the payload of {name!r} is one mapping, or keyword arguments")
    if (reason := plainjson.fault(payload)) is not None:
        raise PayloadInvalid(f"the payload of {name}: {reason}")
    return payload


LONG_POLL: Final = 30.0
"""Seconds that the API is asked to wait for the end of a job."""
SLACK: Final = 15.0
"""Seconds that the answer may take in addition."""
PAGE: Final = 100

JobRef = str | Job | SubmittedJob[Any]
"""A job, or its id."""


@dataclass(frozen=True, slots=True)
class Handle(SubmittedJob[R]):
    """A job that was submitted by ``Client.submit``: waits for its result, or cancels it."""

    client: "Client"

    async def result(self, timeout: float = PATIENCE) -> R:
        """Wait up to ``timeout`` seconds and return what the handler returned, as the type of its return annotation.

        Raises JobNotSucceeded, NotInTime and ApiError.
        """
        return self.read(await self.wait(timeout))

    async def wait(self, timeout: float = PATIENCE) -> Job:
        """Wait up to ``timeout`` seconds for the job's end and return the job. Raises NotInTime and ApiError."""
        return await self.client.wait(self.id, timeout=timeout)

    async def cancel(self) -> Job:
        """Request that the job is cancelled, and return it as it was at the request. Raises ApiError."""
        return await self.client.cancel(self.id)


class Client:
    """Asynchronous client of the API. Connects when it is first used.

    ``url`` and ``api_key`` default to JOBTAPE_URL and JOBTAPE_API_KEY. ``patience``: seconds during which a request is
    retried while the API cannot be reached or cannot answer at the moment. ``outage``: the same in seconds for
    ``events``, after the first connection. Retries are safe: a submission has an Idempotency-Key, and all other
    requests may be repeated. Raises WrongAddress when ``url`` is not a valid URL or the environment's proxy cannot be
    used, and WrongKey when ``api_key`` cannot be a key.
    """

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, patience: float = 30.0, outage: float = OUTAGE
    ) -> None:
        self._connection = ApiConnection(url, api_key, RequestPolicy(patience=patience))
        self._outage = outage

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Running requests and iterations over events raise ClientClosed or ApiError."""
        await self._connection.close()

    @property
    def url(self) -> str:
        """The API's URL."""
        return self._connection.url

    @overload
    async def submit(self, job_type: JobType[R], /, *args: Any, **kwargs: Any) -> Handle[R]: ...
    @overload
    async def submit(self, job_type: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def submit(self, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Submit a job with the handler's arguments. Returns when the broker has confirmed the job.

        When ``job_type`` is a name (``"add"``), pass the payload as one mapping or as keyword arguments. Raises
        PayloadInvalid before anything is sent, RequestRefused, Unreachable, and NotConfirmed when it is not known
        whether the job was accepted.
        """
        return await self.submit_with(Options(), job_type, *args, **kwargs)

    @overload
    async def submit_with(self, options: Options, job_type: JobType[R], /, *args: Any, **kwargs: Any) -> Handle[R]: ...
    @overload
    async def submit_with(self, options: Options, job_type: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def submit_with(
        self, options: Options, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any
    ) -> Handle[Any]:
        """Submit a job as ``submit`` does, with a queue, timeout, labels or idempotency key for this one job."""
        if isinstance(job_type, str):
            body = submission_body(job_type, _payload(job_type, args, kwargs), options)
        else:
            body = submission_body(job_type.name, job_type.payload_to_send(*args, **kwargs), options)
        key = options.idempotency_key or wire.new_key()
        headers = {"Content-Type": "application/json", "Idempotency-Key": wire.key_header(key)}
        try:
            shown = await self._object("POST", "/jobs", content=wire.json_of(body), headers=headers)
        except (NoAnswer, Unavailable) as error:
            raise NotConfirmed(
                f"{error}; it is not known whether the job was accepted: submit it again with "
                f"Options(idempotency_key={key!r}), which never makes a second job",
                key,
            ) from error
        return Handle(job_of(shown), None if isinstance(job_type, str) else job_type, self)

    async def get(self, job: JobRef) -> Job:
        """Return the current state of a job. Raises NotFound and ApiError."""
        return job_of(await self._object("GET", _path(job)))

    async def wait(self, job: JobRef, *, timeout: float = PATIENCE) -> Job:
        """Wait until a job has succeeded, failed or been cancelled, and return it.

        ``timeout`` is in seconds; ``math.inf`` waits without limit. When ``job`` is what ``redrive`` returned, this
        waits for the end of the new run, even while the view still shows the previous one. Raises NotInTime (the job
        goes on), NotFound, and ApiError when the API is unavailable for longer than ``patience``.
        """
        deadline = time.monotonic() + timeout
        run = _run(job)
        pause = 0.0
        while True:
            remaining = max(deadline - time.monotonic(), 0.0)
            found, waited = await self._get_when_final(job, min(remaining, LONG_POLL))
            if found.final and found.run >= run:
                return found
            if time.monotonic() >= deadline:
                raise NotInTime(found, timeout)
            # The API may answer at once, because it is stopping or shows an earlier run: do not poll without a pause.
            pause = 0.0 if waited and not found.final else min(pause * 1.5 + 0.1, 1.0)
            await asyncio.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))

    async def cancel(self, job: JobRef) -> Job:
        """Request that a job is cancelled, and return it as it was at the request.

        Raises NotFound, and Conflict when the job has ended.
        """
        return job_of(await self._object("POST", f"{_path(job)}/cancel"))

    async def redrive(self, job: JobRef) -> Job:
        """Run a job again that has ended, and return it in its new run. Raises NotFound and Conflict."""
        return job_of(await self._object("POST", f"{_path(job)}/redrive"))

    async def events(
        self, *, since: Since = None, **filters: Unpack[EventFilters]
    ) -> AsyncGenerator[DeliveredEvent, None]:
        """Yield events in the tape's order, each event once, without end. ``get`` shows at least what was yielded.

        ``since``: start after this cursor; ``"first"`` starts with the oldest event, None with new ones. After a lost
        connection the iteration continues behind the last event. Raises HistoryGone when the events after the position
        are no longer kept, UnreadableEvent for an event of a later version, RequestRefused for filters that the API
        does not know, and ApiError when the API was unavailable for too long. To continue after an error, pass
        ``since=event.cursor`` with the last event you received.
        """
        reader = EventReader(self._connection, query_of(filters), since, outage=self._outage)
        async with aclosing(reader.events()) as received:
            async for one in received:
                yield one

    async def list(self, *, limit: int | None = None, **filters: Unpack[JobFilters]) -> AsyncGenerator[Job, None]:
        """Yield jobs, newest first, at most ``limit``. Pages are fetched as they are needed."""
        remaining = math.inf if limit is None else limit
        position: Mapping[str, str] = {}
        while remaining > 0:
            query = [*query_of(filters), *position.items(), ("limit", str(int(min(remaining, PAGE))))]
            page = await self._object("GET", "/jobs", params=query)
            for shown in page["items"]:
                yield job_of(shown)
            remaining -= len(page["items"])
            if page["next"] is None:
                return
            position = {"cursor": page["next"]}

    async def _get_when_final(self, job: JobRef, seconds: float) -> tuple[Job, bool]:
        """Return the job when it has ended or after ``seconds``, and whether the API waited before it answered."""
        wait = math.floor(seconds)
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        answer = await self._connection.ask("GET", _path(job), headers=headers, timeout=wait + SLACK)
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
