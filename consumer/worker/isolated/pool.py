"""Runs handlers in processes that can be killed: ``@job(isolate=True)``, and jobs that may have killed a worker.

Theory of operation. A process is a fresh interpreter that imports the job modules, which takes longer than most jobs.
So processes are kept, and a process that had to be killed is replaced at once. There are none before the first job
needs one, then as many as jobs run at the same time; a process that is idle for a while ends. Only a few are started at
the same time (``STARTING_AT_ONCE``), and a waiting job takes the first one that is ready, new or free again. So many
short jobs need only a few processes. The timeout of a job begins when its process is ready.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from jobtape.consumer.outcome import Outcome, crashed
from jobtape.consumer.worker.isolated.process import IsolatedProcess, ProcessNotStarted
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import JobTypeSpec

log = logging.getLogger(__name__)

LONGEST_IDLE: Final = 60.0
"""Seconds after which a process without a job ends."""
STARTING_AT_ONCE: Final = max(2, (os.cpu_count() or 1) // 2)


class IsolatedPool:
    """Processes that import ``modules``. ``max_result``: limit of a result in bytes of JSON."""

    def __init__(self, modules: Sequence[str], *, max_result: int) -> None:
        self._modules = tuple(modules)
        self._max_result = max_result
        self._idle: list[IsolatedProcess] = []
        self._waiting: deque[asyncio.Future[IsolatedProcess]] = deque()
        self._all: set[IsolatedProcess] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, job_type: JobTypeSpec, order: Order, context: Context) -> Outcome:
        """Run one job in a process, which is killed after the order's timeout or when this is cancelled.

        When this returns or raises, nothing of the job runs any more, except processes that its handler started and
        that did not have to be killed.
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
        """Kill all processes and wait until they have ended."""
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
        waiter: asyncio.Future[IsolatedProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._start_for_waiting()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def _release(self, process: IsolatedProcess) -> None:
        if not process.ended.is_set():
            self._offer(process)
            return
        self._all.discard(process)
        if len(self._starting) < STARTING_AT_ONCE and not self._closed:
            self._start()

    def _offer(self, process: IsolatedProcess) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(process)
                return
        self._idle.append(process)
        asyncio.get_running_loop().call_later(LONGEST_IDLE, self._end_idle, process, process.jobs)

    def _end_idle(self, process: IsolatedProcess, jobs: int) -> None:
        if process in self._idle and process.jobs == jobs:
            self._idle.remove(process)
            self._all.discard(process)
            process.kill()

    def _start_for_waiting(self) -> None:
        while len(self._starting) < min(len(self._waiting), STARTING_AT_ONCE) and not self._closed:
            self._start()

    def _start(self) -> None:
        task = asyncio.create_task(self._start_one(), name="start a process for isolated handlers")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(lambda _: self._start_for_waiting())

    async def _start_one(self) -> None:
        try:
            process = await IsolatedProcess.start(self._modules, self._max_result)
        except (ProcessNotStarted, OSError) as error:
            log.error("a process for isolated handlers %s", error)
            # Only the job that has waited longest gets the error; for the others it is tried again.
            if self._waiting and not (waiter := self._waiting.popleft()).done():
                waiter.set_exception(ProcessNotStarted(str(error)))
            return
        self._all.add(process)
        self._offer(process)
