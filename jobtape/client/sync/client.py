"""The client for code without ``await``: runs the asynchronous client in a thread."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

from jobtape.client.client import END_TIMEOUT, Client, Handle, JobRef, SubmittedJob
from jobtape.client.errors import ClientClosed
from jobtape.client.filters import EventFilters, JobFilters
from jobtape.client.flows import NodeInfo
from jobtape.client.http.answers import Answer
from jobtape.client.http.connection import RequestPolicy
from jobtape.client.http.stream import OUTAGE, Since
from jobtape.client.sync.portal import Portal
from jobtape.client.sync.rules import SyncLimits, SyncSchedules
from jobtape.client.sync.webhooks import SyncWebhooks
from jobtape.flows import Flow
from jobtape.jobs import JobType, R
from jobtape.schemas.flows.graph import NodeState
from jobtape.schemas.job import Job
from jobtape.schemas.messages.delivered_event import DeliveredEvent
from jobtape.schemas.submission import Options


class SyncClient:
    """Blocking client of the API: ``with SyncClient("http://127.0.0.1:8000") as client``.

    See ``Client`` for what the methods take, return and raise. Several threads may use one client at the same time.
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
        self._client = Client(url, api_key=api_key, patience=patience, outage=outage, policy=policy)
        self._portal = Portal()
        self.limits = SyncLimits(self._client.limits, self._portal)
        self.schedules = SyncSchedules(self._client.schedules, self._portal)
        self.webhooks = SyncWebhooks(self._client.webhooks, self._portal)

    def __enter__(self) -> "SyncClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; a second call does nothing. Waiting calls raise ClientClosed."""
        try:
            with suppress(ClientClosed):
                self._portal.call(self._client.close)
        finally:
            self._portal.close()

    @property
    def url(self) -> str:
        """The API's URL."""
        return self._client.url

    def submit(self, job_type: JobType[R] | str, /, *args: Any, **kwargs: Any) -> "SyncHandle[R]":
        """See ``Client.submit``."""
        return self.submit_with(Options(), job_type, *args, **kwargs)

    def submit_with(
        self, options: Options, job_type: JobType[R] | str, /, *args: Any, **kwargs: Any
    ) -> "SyncHandle[R]":
        """See ``Client.submit_with``."""
        handle: Handle[R] = self._portal.call(self._client.submit_with, options, job_type, *args, **kwargs)
        return SyncHandle(handle.job, handle.job_type, self)

    def submit_flow(self, flow: Flow, *, idempotency_key: str | None = None) -> "SyncHandle[Any]":
        """See ``Client.submit_flow``."""
        handle = self._portal.call(self._client.submit_flow, flow, idempotency_key=idempotency_key)
        return SyncHandle(handle.job, handle.job_type, self)

    def nodes(
        self, flow: JobRef, *, state: NodeState | None = None, as_of: int | datetime | None = None
    ) -> Sequence[NodeInfo]:
        """See ``Client.nodes``."""
        return self._portal.call(self._client.nodes, flow, state=state, as_of=as_of)

    def get(self, job: JobRef) -> Job:
        """See ``Client.get``."""
        return self._portal.call(self._client.get, job)

    def wait(self, job: JobRef, *, timeout: float = END_TIMEOUT) -> Job:
        """See ``Client.wait``."""
        return self._portal.call(self._client.wait, job, timeout=timeout)

    def cancel(self, job: JobRef) -> Job:
        """See ``Client.cancel``."""
        return self._portal.call(self._client.cancel, job)

    def signal(
        self, job: JobRef, name: str, payload: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Job:
        """See ``Client.signal``."""
        return self._portal.call(self._client.signal, job, name, payload, idempotency_key=idempotency_key)

    def release(self, job: JobRef) -> Job:
        """See ``Client.release``."""
        return self._portal.call(self._client.release, job)

    def redrive(self, job: JobRef) -> Job:
        """See ``Client.redrive``."""
        return self._portal.call(self._client.redrive, job)

    def fork(
        self, job: JobRef, begin: str, payload: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> "SyncHandle[Any]":
        """See ``Client.fork``."""
        forked = self._portal.call(self._client.fork, job, begin, payload, idempotency_key=idempotency_key)
        return SyncHandle(forked.job, None, self)

    def pause(self, *, queue: str | None = None, job_type: JobType[Any] | str | None = None) -> Job:
        """See ``Client.pause``."""
        return self._portal.call(self._client.pause, queue=queue, job_type=job_type)

    def resume(self, *, queue: str | None = None, job_type: JobType[Any] | str | None = None) -> bool:
        """See ``Client.resume``."""
        return self._portal.call(self._client.resume, queue=queue, job_type=job_type)

    def events(self, *, since: Since = None, **filters: Unpack[EventFilters]) -> Iterator[DeliveredEvent]:
        """See ``Client.events``."""
        with self._portal.iterate(self._client.events(since=since, **filters)) as received:
            yield from received

    def list(self, *, limit: int | None = None, **filters: Unpack[JobFilters]) -> Iterator[Job]:
        """See ``Client.list``."""
        with self._portal.iterate(self._client.list(limit=limit, **filters)) as jobs:
            yield from jobs

    def request(self, method: str, path: str, *, repeatable: bool = True, **options: Any) -> Answer:
        """See ``Client.request``."""
        return self._portal.call(self._client.request, method, path, repeatable=repeatable, **options)


@dataclass(frozen=True, slots=True)
class SyncHandle(SubmittedJob[R]):
    """A job that was submitted by ``SyncClient.submit``; see ``Handle``."""

    client: SyncClient

    def result(self, timeout: float = END_TIMEOUT) -> R:
        """See ``Handle.result``."""
        return self.read(self.wait(timeout))

    def wait(self, timeout: float = END_TIMEOUT) -> Job:
        """See ``Handle.wait``."""
        return self.client.wait(self.id, timeout=timeout)

    def cancel(self) -> Job:
        """See ``Handle.cancel``."""
        return self.client.cancel(self.id)
