"""The asynchronous client: uses the API over HTTP and needs neither the broker nor the database.

async with Client("http://127.0.0.1:8000") as client:
    handle = await client.submit(add, x=1, y=2)
    assert await handle.result(timeout=10) == 3
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Unpack
from urllib.parse import quote
from uuid import uuid4

from jobtape.client.errors import JobNotSucceeded, NoAnswer, NotConfirmed, NotInTime, Unavailable
from jobtape.client.filters import EventFilters, JobFilters, query_of
from jobtape.client.flows import NodeInfo, nodes_of
from jobtape.client.http.answers import Answer, job_of
from jobtape.client.http.bodies import body_of, json_of, submission_headers
from jobtape.client.http.connection import ApiConnection, RequestPolicy
from jobtape.client.http.stream import OUTAGE, EventReader, Since
from jobtape.client.rules import Limits, Schedules, target_path
from jobtape.client.webhooks import Webhooks
from jobtape.flows import Flow
from jobtape.jobs import JobType, R
from jobtape.schemas.flows.graph import NodeState
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.messages.delivered_event import DeliveredEvent
from jobtape.schemas.submission import Options

END_TIMEOUT: Final = 60.0
"""Default in seconds for waiting for a job's end."""
LONG_POLL: Final = 30.0
"""Seconds that the API is asked to wait for the end of a job."""
SLACK: Final = 15.0
"""Seconds that the answer may take in addition."""
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class SubmittedJob(Generic[R]):
    """What the handles of both clients have in common.

    ``job``: the job in the answer to the submission. ``job_type``: converts its result; None keeps JSON.
    """

    job: Job
    job_type: JobType[R] | None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    def read(self, job: Job) -> R:
        """Return the result of a job that has ended.

        Raises JobNotSucceeded, and ResultInvalid when the result does not fit this program's version of the job type.
        """
        if job.state is not JobState.SUCCEEDED:
            raise JobNotSucceeded(job)
        result: Any = job.result if self.job_type is None else self.job_type.read_result(job.result)
        return result  # type: ignore[no-any-return]  # read_result returns R


JobRef = str | Job | SubmittedJob[Any]
"""A job, or its id."""


def job_path(job: JobRef) -> str:
    """Return the path of a job. Raises ValueError when an id cannot be a job id."""
    job_id = job if isinstance(job, str) else job.id
    if not job_id or not all(letter.isalnum() or letter == "-" for letter in job_id):
        raise ValueError(f"{job_id!r} is not a job id")
    return f"/jobs/{job_id}"


@dataclass(frozen=True, slots=True)
class Handle(SubmittedJob[R]):
    """A job that was submitted by ``Client.submit``: waits for its result, or cancels it."""

    client: "Client"

    async def result(self, timeout: float = END_TIMEOUT) -> R:
        """Wait up to ``timeout`` seconds and return what the handler returned, as the type of its return annotation.

        Raises JobNotSucceeded, NotInTime and ApiError.
        """
        return self.read(await self.wait(timeout))

    async def wait(self, timeout: float = END_TIMEOUT) -> Job:
        """Wait up to ``timeout`` seconds for the job's end and return the job. Raises NotInTime and ApiError."""
        return await self.client.wait(self.id, timeout=timeout)

    async def cancel(self) -> Job:
        """Request that the job is cancelled, and return it as it was at the request. Raises ApiError."""
        return await self.client.cancel(self.id)


class Client:
    """Asynchronous client of the API. Connects when it is first used.

    Retries are safe: a submission has an Idempotency-Key, and all other requests may be repeated. Raises WrongAddress
    when ``url`` is not a valid URL or the environment's proxy cannot be used, and WrongKey when ``api_key`` cannot be a
    key.

    :param url: Default: JOBTAPE_URL.
    :param api_key: Default: JOBTAPE_API_KEY.
    :param patience: Seconds during which a request is retried while the API cannot be reached or cannot answer.
    :param outage: The same for ``events``, after the first connection.
    :param policy: Replaces ``patience``: time limits and retries in detail.

    ``limits``, ``schedules`` and ``webhooks`` have the methods for those.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        patience: float = 30.0,
        outage: float = OUTAGE,
        policy: RequestPolicy | None = None,
    ) -> None:
        self._connection = ApiConnection(url, api_key, policy or RequestPolicy(patience=patience))
        self.limits = Limits(self.request)
        self.schedules = Schedules(self.request)
        self.webhooks = Webhooks(self.request)
        self._outage = outage

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Running requests and iterations over events raise ClientClosed or ApiError."""
        await self._connection.close()

    @property
    def url(self) -> str:
        """The API's URL."""
        return self._connection.url

    async def submit(self, job_type: JobType[R] | str, /, *args: Any, **kwargs: Any) -> Handle[R]:
        """Submit a job with the handler's arguments. Returns when the broker has confirmed the job.

        When ``job_type`` is a name (``"add"``), pass the payload as one mapping or as keyword arguments. Raises
        PayloadInvalid before anything is sent, RequestRefused, Unreachable, and NotConfirmed when it is not known
        whether the job was accepted.
        """
        return await self.submit_with(Options(), job_type, *args, **kwargs)

    async def submit_with(
        self, options: Options, job_type: JobType[R] | str, /, *args: Any, **kwargs: Any
    ) -> Handle[R]:
        """Submit a job as ``submit`` does, with a queue, timeout, labels or idempotency key for this one job."""
        body = body_of(options, job_type, args, kwargs)
        read_as = None if isinstance(job_type, str) else job_type
        return await self._submitted("/jobs", body, options.idempotency_key, read_as)

    async def submit_flow(self, flow: Flow, *, idempotency_key: str | None = None) -> Handle[Any]:
        """Submit a flow, which is a job. Raises what ``submit`` raises."""
        return await self._submitted("/flows", flow.body(), idempotency_key, None)

    async def nodes(
        self, flow: JobRef, *, state: NodeState | None = None, as_of: int | datetime | None = None
    ) -> Sequence[NodeInfo]:
        """Return the nodes of a flow, or those in one state. ``as_of``: as they were after that cursor, or then.

        Raises NotFound, and Conflict for a job that is none.
        """
        given = {"state": state, "as_of": as_of.isoformat() if isinstance(as_of, datetime) else as_of}
        params = {name: value for name, value in given.items() if value is not None}
        return nodes_of(await self.request("GET", f"{job_path(flow)}/nodes", params=params))

    async def get(self, job: JobRef) -> Job:
        """Return the current state of a job. Raises NotFound and ApiError."""
        return job_of((await self.request("GET", job_path(job))).content)

    async def wait(self, job: JobRef, *, timeout: float = END_TIMEOUT) -> Job:
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
        return job_of((await self.request("POST", f"{job_path(job)}/cancel")).content)

    async def signal(
        self, job: JobRef, name: str, payload: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Job:
        """Send a signal to a job, also before it waits for it, and return the job.

        Raises NotFound, and Conflict when another signal with this name came first, its time was over, or the run has
        ended. A retry never makes a second signal; repeat the call under the same ``idempotency_key`` after ApiError.
        """
        key = idempotency_key or uuid4().hex
        path = f"{job_path(job)}/signals/{quote(name, safe='')}"
        content = json_of({"payload": dict(payload or {})})
        return job_of((await self.request("POST", path, content=content, headers=submission_headers(key))).content)

    async def release(self, job: JobRef) -> Job:
        """Let a failed job give up its ordering key, and return it. Raises NotFound, and Conflict for an open job."""
        return job_of((await self.request("POST", f"{job_path(job)}/release")).content)

    async def redrive(self, job: JobRef) -> Job:
        """Run a job again that has ended, and return it in its new run. Raises NotFound and Conflict."""
        return job_of((await self.request("POST", f"{job_path(job)}/redrive")).content)

    async def fork(
        self, job: JobRef, begin: str, payload: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Handle[Any]:
        """Submit a new flow with the nodes of an earlier one, which runs again from the node ``begin`` on and takes the
        results of all other jobs that have succeeded. ``payload``: another one for that node.

        Raises NotFound, Conflict for a job that is no flow, Invalid, NotConfirmed and ApiError.
        """
        body = {"from": begin} | ({} if payload is None else {"payload": dict(payload)})
        return await self._submitted(f"{job_path(job)}/fork", body, idempotency_key, None)

    async def pause(self, *, queue: str | None = None, job_type: JobType[Any] | str | None = None) -> Job:
        """Start no more jobs of a queue or a job type, and return the rule. Running jobs go on.

        Raises Invalid for a queue or job type that the API does not know.
        """
        return job_of((await self.request("POST", f"{target_path(queue, job_type)}/pause")).content)

    async def resume(self, *, queue: str | None = None, job_type: JobType[Any] | str | None = None) -> bool:
        """Let the jobs of a paused queue or job type begin again. Return whether it was paused."""
        return bool((await self.request("POST", f"{target_path(queue, job_type)}/resume")).content["ended"])

    async def events(
        self, *, since: Since = None, **filters: Unpack[EventFilters]
    ) -> AsyncGenerator[DeliveredEvent, None]:
        """Yield events in the tape's order, each event once, without end. ``get`` shows at least what was yielded.

        ``since``: start after this cursor; ``"first"`` starts with the oldest event, None with new ones. After a lost
        connection the iteration continues after the last event. Raises HistoryGone when the events after the position
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
            page, _ = await self.request("GET", "/jobs", params=query)
            for shown in page["items"]:
                yield job_of(shown)
            remaining -= len(page["items"])
            if page["next"] is None:
                return
            position = {"cursor": page["next"]}

    async def request(self, method: str, path: str, *, repeatable: bool = True, **options: Any) -> Answer:
        """Send a request for which there is no other method, and return the answer.

        ``repeatable``: whether a retry is safe. ``options`` are those of httpx. Raises ApiError.
        """
        return await self._connection.request(method, path, repeatable=repeatable, **options)

    async def _submitted(
        self, path: str, body: Mapping[str, Any], key: str | None, job_type: JobType[R] | None
    ) -> Handle[R]:
        key = key or uuid4().hex
        try:
            answer = await self.request("POST", path, content=json_of(body), headers=submission_headers(key))
        except (NoAnswer, Unavailable) as error:
            raise NotConfirmed(
                f"{error}; it is not known whether the job was accepted: submit it again with "
                f"Options(idempotency_key={key!r}), which never makes a second job",
                key,
            ) from error
        return Handle(job_of(answer.content), job_type, self)

    async def _get_when_final(self, job: JobRef, seconds: float) -> tuple[Job, bool]:
        """Return the job when it has ended or after ``seconds``, and whether the API waited before it answered."""
        wait = math.floor(seconds)
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        answer = await self.request("GET", job_path(job), headers=headers, timeout=wait + SLACK)
        return job_of(answer.content), "preference-applied" in answer.headers


def _run(job: JobRef) -> int:
    match job:
        case Job():
            return job.run
        case SubmittedJob():
            return job.job.run
    return 1
