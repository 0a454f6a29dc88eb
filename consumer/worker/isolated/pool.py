"""Runs handlers in processes of their own, which can be killed: ``@job(isolate=True)``, and jobs under suspicion.

Theory of operation. A process is a fresh interpreter that imports the job modules, which takes longer than most jobs,
so processes are kept, and one that had to be killed is replaced at once. There are none before the first job needs one,
then as many as jobs run at the same time; those that are idle for a while end. Few are being started at any time
(STARTING_AT_ONCE): whoever waits takes the first that is ready, a new one or one that has become free, so a crowd of
short jobs is served by a few. Starting is not part of a job's time-out, waiting neither.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from jobtape.consumer.outcome import Outcome, crashed
from jobtape.consumer.worker.isolated.process import IsolatedProcess, ProcessNotStarted
from jobtape.schemas.context import Context
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import JobTypeSpec

log = logging.getLogger(__name__)

IDLE: Final = 60.0
"""Seconds after which a process without work ends."""
STARTING_AT_ONCE: Final = max(2, (os.cpu_count() or 1) // 2)


class IsolatedPool:
    """``modules``: what each process imports, where the job types are; ``max_result``: bytes of JSON."""

    def __init__(self, modules: Sequence[str], *, max_result: int) -> None:
        self._modules = tuple(modules)
        self._max_result = max_result
        self._idle: list[IsolatedProcess] = []
        self._waiting: deque[asyncio.Future[IsolatedProcess]] = deque()
        self._all: set[IsolatedProcess] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, job_type: JobTypeSpec, order: Order, context: Context) -> Outcome:
        """Do one job in a process that is killed after the order's time-out, or when this is cancelled.

        Only then does this return: nothing of the job runs any more, except what the handler itself left running.
        """
        try:
            process = await self._acquire()
        except ProcessNotStarted as error:
            return crashed(job_type, str(error))
        try:
            return await process.run(job_type, order, context)
        finally:
            self._release(process)

    async def close(self) -> None:
        """Kill all of them, and wait until they have ended."""
        self._closed = True
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(process.kill_and_wait() for process in self._all))

    async def _acquire(self) -> IsolatedProcess:
        while self._idle:
            process = self._idle.pop()
            if not process.ended.is_set():
                return process
            self._all.discard(process)
        place: asyncio.Future[IsolatedProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._start_wanted()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._release(place.result())
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def _release(self, process: IsolatedProcess) -> None:
        if process.ended.is_set():
            self._all.discard(process)
            self._start(replacing=True)
        else:
            self._offer(process)

    def _offer(self, process: IsolatedProcess) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(process)
                return
        self._idle.append(process)
        asyncio.get_running_loop().call_later(IDLE, self._end_idle, process, process.jobs)

    def _end_idle(self, process: IsolatedProcess, jobs: int) -> None:
        if process in self._idle and process.jobs == jobs:
            self._idle.remove(process)
            self._all.discard(process)
            process.kill()

    def _start_wanted(self) -> None:
        while len(self._starting) < min(len(self._waiting), STARTING_AT_ONCE) and not self._closed:
            self._start()

    def _start(self, *, replacing: bool = False) -> None:
        if self._closed or (replacing and len(self._starting) >= STARTING_AT_ONCE):
            return
        task = asyncio.create_task(self._start_one(), name="start a process for isolated handlers")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(lambda _: self._start_wanted())

    async def _start_one(self) -> None:
        try:
            process = await IsolatedProcess.start(self._modules, self._max_result)
        except (ProcessNotStarted, OSError) as error:
            log.error("a process for isolated handlers %s", error)
            # Only the oldest waiter gets the error; for the others it is tried again.
            if self._waiting and not (place := self._waiting.popleft()).done():
                place.set_exception(ProcessNotStarted(str(error)))
            return
        self._all.add(process)
        self._offer(process)
