"""Runs the users' handlers, where they cannot hurt the connection.

``async def`` handlers run on an event loop in a thread of its own, ``def`` handlers in a pool of threads, isolated ones
in processes; the loop that keeps the AMQP connection alive runs no user code. So a handler that blocks costs its
neighbours time, and never the heartbeat.

Time in which the handlers' loop was blocked is not charged to those who waited for it, up to CREDIT. A handler that
still blocks it when its own time is over can be ended by nobody: it fails, the loop is given up (``given_up``) with all
that runs on it, and those executions are undone: to be done again, by a worker whose loop answers.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

from jobtape.consumer.handler_call import Call
from jobtape.consumer.handlers_loop import HandlersLoop
from jobtape.consumer.isolated import Isolated
from jobtape.consumer.outcome import Outcome, timed_out
from jobtape.schemas.context import Context
from jobtape.schemas.job import Order
from jobtape.schemas.jobtype import JobType

log = logging.getLogger(__name__)

LATE = 5.0
"""Seconds beyond its time-out until a handler that does not end is given up."""
CREDIT = 30.0
"""Seconds at most that a handler gets back for those in which another one blocked the loop."""
SILENT: Final = 1.0
"""Seconds without an answer after which the handlers' loop counts as blocked now."""
LOOK: Final = 0.5

Where = Literal["loop", "thread", "process"]


class Undone(Exception):
    """An execution that came to nothing through no fault of its own: neither failed nor counted, to be done again."""


class Working(asyncio.Future[Outcome]):
    """A handler at work, seen from the worker's loop. ``cancel`` only asks (``ask``) the handler to end: as long as it
    runs it takes its place.
    """

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.ask: Callable[[], object] = lambda: None

    def cancel(self, msg: Any = None) -> bool:
        """Ask; False when it has ended already."""
        if self.done():
            return False
        self.ask()
        return True

    def abandon(self) -> None:
        """It is not waited for any longer."""
        super().cancel()

    def end_with(self, source: "asyncio.Future[Outcome] | concurrent.futures.Future[Outcome]") -> None:
        """Be done with the outcome of ``source``, which is; callable from any thread."""
        with contextlib.suppress(RuntimeError):  # the worker's loop has ended while a handler still ran
            self.get_loop().call_soon_threadsafe(self._end, source)

    def _end(self, source: "asyncio.Future[Outcome] | concurrent.futures.Future[Outcome]") -> None:
        if self.done():
            return
        if source.cancelled():
            super().cancel()
        elif (error := source.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(source.result())


class Handlers:
    """``concurrency``: how many ``def`` handlers may run at once; ``max_result``: bytes of JSON; ``modules``: where the
    job types are, for the processes of isolated handlers to import.
    """

    def __init__(self, *, concurrency: int, max_result: int, modules: Sequence[str] = ()) -> None:
        self.given_up = asyncio.Event()
        """Set when handlers cannot be ended that leave nothing to work with: this process should end."""
        self.why_given_up = ""
        self._max_result = max_result
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="job")
        self._loop = HandlersLoop()
        self._on_loop: set[Working] = set()
        self._isolated = Isolated(modules, max_result=max_result)

    def start(self, job_type: JobType, order: Order, context: Context) -> Working:
        """Begin one execution of ``order``; lifting and checking its payload is part of it, since that runs code of the
        users'.

        The future never raises, and is done when no handler runs any more; cancelling it asks the handler to end, as
        cancelling a task does.

        An ``async`` handler is cancelled after the order's time-out. A thread cannot be ended: it is asked in vain.
        """
        if job_type.is_async:
            working = Working("loop")
            self._on_loop.add(working)
            working.add_done_callback(self._on_loop.discard)
            coroutine = self._run_async(self._call(job_type, order, context), order.timeout)
            working.ask = self._loop.begin(coroutine, working, working.end_with)
        else:
            working = Working("thread")
            self._threads.submit(self._call(job_type, order, context).run).add_done_callback(working.end_with)
        return working

    def start_isolated(self, job_type: JobType, order: Order, context: Context) -> Working:
        """Begin one execution in a process of its own. It is killed after the order's time-out, and when it is asked to
        end.
        """
        working = Working("process")
        task = asyncio.create_task(self._isolated.run(job_type, order, context))
        task.add_done_callback(working.end_with)
        working.ask = task.cancel
        return working

    async def outcome(self, working: Working, job_type: JobType, timeout: float) -> Outcome:
        """What became of it. Raises Undone, or CancelledError when the handler was asked to end and did."""
        if working.where == "process":  # it keeps its time itself, and begins to count when the process is there
            await asyncio.wait({working})
            return working.result()
        begun, blocked = time.monotonic(), self._loop.blocked
        late = LATE if working.where == "loop" else 0.0
        while True:
            left = begun + timeout + late - time.monotonic()
            if left <= 0:
                if working.where == "thread":
                    return timed_out(job_type, timeout)
                left += min(CREDIT, self._loop.blocked - blocked)
                if self._loop.silence > SILENT:
                    if self._loop.running() is working:
                        self._give_up_loop(working, job_type)
                        return timed_out(job_type, timeout)
                    if left <= 0:
                        raise Undone(f"another handler blocked the loop on which {job_type.name} ran")
                elif left <= 0:
                    return timed_out(job_type, timeout)
                left = min(left, LOOK)
            done, _ = await asyncio.wait({working}, timeout=left)
            if done:
                if working.cancelled() and self.given_up.is_set():
                    raise Undone(f"another handler blocked the loop on which {job_type.name} ran")
                return working.result()

    async def close(self) -> None:
        """Stop; what still runs in threads is left to the end of the process."""
        self._loop.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._isolated.close()

    def give_up(self, why: str) -> None:
        """This process should end."""
        self.why_given_up = (
            f"{why}: this worker ends, and is to be started anew; isolate=True makes a handler one that can be ended"
        )
        log.error("%s", self.why_given_up)
        self.given_up.set()

    def _give_up_loop(self, culprit: Working, job_type: JobType) -> None:
        self.give_up(f"the handler of {job_type.name} blocks the loop of all async handlers beyond its time-out")
        for working in self._on_loop - {culprit}:
            working.abandon()

    def _call(self, job_type: JobType, order: Order, context: Context) -> Call:
        return Call(job_type, order.payload, order.payload_version, context, self._max_result)

    async def _run_async(self, call: Call, timeout: float) -> Outcome:
        limit = asyncio.timeout(None)
        stop_timer = self._loop.call_later(timeout, lambda: limit.reschedule(0), credit=CREDIT)
        try:
            with contextlib.suppress(TimeoutError):
                async with limit:
                    return await call.run_async()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return call.failed(error)
        finally:
            stop_timer()
        return timed_out(call.job_type, timeout)
