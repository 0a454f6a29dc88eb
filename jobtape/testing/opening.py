"""Opens installations for tests: ``memory`` with a broker in memory, ``on_broker`` on a real one."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

from yarl import URL

from jobtape.app import JobTypes, by_name
from jobtape.broker.declare import remove_namespace
from jobtape.broker.link import openers
from jobtape.process import clock
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.settings import Settings, read_settings
from jobtape.testing import views
from jobtape.testing.broker.broker import MemoryBroker
from jobtape.testing.broker.connection import connect
from jobtape.testing.installation import Installation
from jobtape.testing.loop import LoopThread
from jobtape.testing.parts import Parts

_MEMORY_URL: Final = "amqp://memory.invalid/"
"""Nobody can have this host (RFC 2606)."""


class Opening:
    """``async with`` or ``with``: an ``Installation`` during the block. ``url``: the broker's; None: in memory."""

    def __init__(self, job_types: JobTypes, url: str | None, settings: Mapping[str, Any]) -> None:
        self._job_types = by_name(job_types)
        self._url = url
        self._given = dict(settings)

    async def __aenter__(self) -> Installation:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __enter__(self) -> Installation:
        self._offset = clock.offset()
        self._store = views.take()
        namespace = f"testing-{uuid4().hex[:12]}"
        # Without heartbeats, since the clock may be moved.
        url = f"{_MEMORY_URL}{namespace}" if self._url is None else str(URL(self._url).update_query(heartbeat="0"))
        own = {"rabbitmq_url": url, "database_url": self._store.url, "namespace": namespace}
        self._settings = read_settings(**{**self._given, **own})
        broker = None if self._url else self._memory(self._settings)
        self._thread = LoopThread("jobtape testing")
        self._thread.start()
        self._parts: Parts | None = None
        try:
            self._thread.call_blocking(self._start, broker)
            assert self._parts is not None
            return Installation(self._thread, self._parts, self._job_types, broker)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._parts is not None:
                self._thread.call_blocking(self._parts.stop)
            if self._url:
                topology = self._settings.topology.with_queues(queues_of(self._job_types.values()))
                self._thread.call_blocking(remove_namespace, self._url, topology)
            views.give_back(self._store)
        except BaseException:
            self._store.close()  # something may still write to it
            raise
        finally:
            self._thread.stop()
            openers.pop(self._settings.rabbitmq_url, None)
            clock.move_to(self._offset)

    async def _start(self, broker: MemoryBroker | None) -> None:
        # A broker in memory loses nothing.
        self._parts = Parts(self._thread.loop, self._settings, self._store, self._job_types, maintenance=broker is None)
        await self._parts.start()
        if broker is not None:
            await self._parts.start_worker()

    def _memory(self, settings: Settings) -> MemoryBroker:
        broker = MemoryBroker(settings.topology.with_queues(queues_of(self._job_types.values())))
        openers[settings.rabbitmq_url] = lambda: connect(broker)
        return broker


def memory(job_types: JobTypes = (), **settings: Any) -> Opening:
    """Open an installation with a broker in memory: ``async with memory([hello]) as jt:``, or ``with``.

    Rules, effects, gates, flows, schedules, subscriptions and the REST API are the real ones, and the view is a SQLite
    file that is removed afterwards. Only the broker is replaced. ``settings`` replace those of the environment, such
    as ``max_result=100``.
    """
    return Opening(job_types, None, settings)


def on_broker(url: str, job_types: JobTypes = (), **settings: Any) -> Opening:
    """Open an installation as ``memory`` does, on the broker at ``url``, in a namespace of its own that is removed
    afterwards.
    """
    return Opening(job_types, url, settings)
