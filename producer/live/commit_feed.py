"""Receives the projector's notices of what is committed."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from jobtape.broker.channels import consuming_exchange
from jobtape.broker.frames import Delivered
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.tasks import cancel_and_wait, translate_cancellation
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.messages.commit_notice import CommitNotice, decode_notice
from jobtape.schemas.topology import Topology

log = logging.getLogger(__name__)

LINGER: Final = 30.0
"""Seconds for which the queue stays after the last listener, because the next one often comes soon."""
RETRY_PAUSE: Final = 2.0
MOST_NOTICES: Final = 100
"""Notices on the queue; then the oldest are dropped."""

OnCommit = Callable[[Mapping[str, bool] | None], None]


class CommitFeed:
    """Calls ``callbacks`` for notices while it is held, over the connection of ``link``.

    A callback gets the jobs with new events, by id whether the job has ended; None when it may be any job, since a
    notice may have been lost. The queue belongs to this process and is deleted with its connection.
    """

    def __init__(self, link: Link, topology: Topology) -> None:
        self.live = False
        """Whether notices arrive; otherwise the view has to be polled."""
        self.callbacks: list[OnCommit] = []
        self._link = link
        self._topology = topology
        self._task: asyncio.Task[None] | None = None
        self._stop_timer: asyncio.TimerHandle | None = None
        self._users = 0
        self._last: CommitNotice | None = None

    def acquire(self) -> None:
        """Receive notices until ``release`` was called as often as this."""
        self._users += 1
        if self._stop_timer is not None:
            self._stop_timer.cancel()
            self._stop_timer = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="notices of commits")

    def release(self) -> None:
        """Receive notices for ``LINGER`` more seconds if nobody else uses it."""
        self._users -= 1
        if not self._users and self._task is not None and self._stop_timer is None:
            self._stop_timer = asyncio.get_running_loop().call_later(LINGER, self._stop)

    async def close(self) -> None:
        """Receive no more notices."""
        task = self._task
        self._stop()
        if task is not None:
            await cancel_and_wait(task)

    def _stop(self) -> None:
        if self._stop_timer is not None:
            self._stop_timer.cancel()
            self._stop_timer = None
        task, self._task = self._task, None
        self.live = False
        if task is not None:
            task.cancel()

    async def _run(self) -> None:
        # Not forever: a cancellation may get lost in aiormq (see ``cancel_and_wait``).
        while self._task is asyncio.current_task():
            try:
                with translate_cancellation():
                    await self._receive(await self._link.connection())
            except (JobtapeError, *BROKER_ERRORS) as error:
                log.debug("no notices of commits, so the view is polled: %s", reason_of(error))
            finally:
                if self._task is asyncio.current_task():  # otherwise a successor has begun
                    self.live = False
            await asyncio.sleep(RETRY_PAUSE)

    async def _receive(self, connection: Connection) -> None:
        """Receive notices until the channel ends."""
        exchange = self._topology.committed.name
        async with consuming_exchange(connection, exchange, self._on_notices, most=MOST_NOTICES) as ended:
            self.live = True
            self._last = None
            self._call(None)  # one may have been published before the queue was bound
            await ended.wait()

    def _on_notices(self, messages: list[Delivered]) -> None:
        jobs: dict[str, bool] | None = {}
        for message in messages:
            notice = decode_notice(message.body)
            if notice is None:
                continue
            if notice.jobs is None or not notice.follows(self._last):
                jobs = None
            elif jobs is not None:
                jobs.update(notice.jobs)
            self._last = notice
        self._call(jobs)

    def _call(self, jobs: Mapping[str, bool] | None) -> None:
        for callback in self.callbacks:
            callback(jobs)
