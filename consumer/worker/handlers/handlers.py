"""Runs user code away from the event loop that has the connection, so that a handler cannot cost the heartbeat.

``async def`` handlers run on an event loop in another thread, ``def`` handlers in threads, and isolated handlers in
processes.

A cancelled ``async`` handler has ended in one of four ways. Which one is decided by what is recorded outside its task,
because a handler may change the task's own count (``_ended_by_cancel``). The worker requested it; the timeout was
over; another handler cancelled it, and then it must run again; or it cancelled itself, and then it has failed.

Time in which the handlers' loop was blocked is not charged to the handlers that waited for it, up to ``CREDIT``. A
handler that still blocks the loop when its own time is over cannot be ended. It fails, and this process ends
(``exit_requested``). The other executions on the loop are aborted, and run again in another worker.
The same happens when a callback or a task that no execution owns blocks the loop until the credit is used up.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from jobtape.consumer.batch_call import BatchCall
from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Outcome, timed_out
from jobtape.consumer.worker.handlers.batches import OpenBatches
from jobtape.consumer.worker.handlers.loop import OWNER, HandlerLoop, HandlerTask
from jobtape.consumer.worker.handlers.loop_inbox import LoopInbox
from jobtape.consumer.worker.handlers.threads import HandlerThreads
from jobtape.consumer.worker.isolated.pool import IsolatedPool
from jobtape.consumer.worker.same_delay import SameDelay
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.batches import Batch
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.telemetry.work import ExecutionSpan

log = logging.getLogger(__name__)

QUICK: Final = 0.05
"""Seconds within which most handlers end. What is done for longer ones is not begun before."""
LONGEST_DELAY = 5.0
"""Seconds beyond its timeout after which an ``async`` handler that does not end is not waited for any more."""
CREDIT = 30.0
"""Most seconds that are added to a handler's timeout for the time in which another one blocked the loop."""
LONGEST_SILENCE: Final = 1.0
"""Seconds without a heartbeat after which the handlers' loop counts as blocked."""
POLL_INTERVAL: Final = 0.5
"""Seconds between two checks of a handler that is late."""
LEAST_EXECUTOR_THREADS: Final = 32
"""Least number of threads for functions that handlers pass to ``asyncio.to_thread``."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds for which ``close`` waits for these threads."""


class ExecutionAborted(Exception):
    """The execution ended without an outcome through no fault of its own. It uses no attempt. Its delivery is rejected,
    which counts towards the delivery limit, and another execution follows.
    """


class RunningHandler(asyncio.Future[Outcome]):
    """A handler that runs, as a future of the worker's loop that is done when the handler has ended.

    ``cancel`` requests the handler to end. The future itself is cancelled when the handler ended on request.
    """

    def __init__(
        self, where: Literal["loop", "thread", "process"], call: Call | BatchCall, timeout: float, inbox: LoopInbox
    ) -> None:
        super().__init__()
        self._inbox = inbox
        self._first_wait: asyncio.Future[bool] | None = None
        self.where = where
        self.call = call
        self.timeout = timeout
        self.request_end: Callable[[], object] = lambda: None
        self.end_requested = False
        self.batch: RunningHandler | None = None
        """The handler that runs for the whole batch, of a job in a batch that has begun."""
        self.timed_out = False
        """Whether the handler was cancelled because its timeout was over."""
        self.ending = False
        """Whether ``end`` was called."""

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        self.end_requested = True
        self.request_end()
        return True

    async def ends_within(self, delay: SameDelay) -> bool:
        """Wait for the end of a handler that was just started. Return whether it has ended before the delay was over.

        Cancelling this does nothing to the handler.
        """
        self._first_wait = self.get_loop().create_future()
        delay.add(self._first_wait)
        return await self._first_wait

    def abandon(self) -> None:
        """Cancel the future although the handler may still run."""
        super().cancel()

    def end(self, result: "Outcome | BaseException | None") -> None:
        """Report that the handler has ended: with an outcome, an error such as ExecutionAborted, or None on request.

        Can be called from any thread. Only the first call counts.
        """
        if self.ending:
            return
        self.ending = True
        with suppress(RuntimeError):  # the worker's loop has ended before the handler
            self._inbox.put(lambda: self._end(result))

    def _end(self, result: "Outcome | BaseException | None") -> None:
        if self.done():
            return
        if self._first_wait is not None and not self._first_wait.done():
            self._first_wait.set_result(True)
        if result is None:
            super().cancel()
        elif isinstance(result, BaseException):
            self.set_exception(result)
            if isinstance(result, ExecutionAborted):
                self.exception()  # mark it as retrieved: after the timeout nobody waits for it
        else:
            self.set_result(result)


class Handlers:
    """Starts handlers and waits for their outcomes.

    ``concurrency``: how many handlers may run at the same time. ``max_result``: limit of a result in bytes of JSON.
    ``modules``: the modules with the job types, for the processes of isolated handlers. ``isolation``: whether isolated
    handlers get processes; otherwise they run here.
    """

    def __init__(
        self, *, concurrency: int, max_result: int, modules: Sequence[str] = (), isolation: bool = True
    ) -> None:
        self.exit_requested = asyncio.Event()
        """Set when this process should end, because handlers that cannot be ended keep it from working."""
        self.why_exit = ""
        self._concurrency = concurrency
        self._max_result = max_result
        self._inbox = LoopInbox(asyncio.get_running_loop())
        self._quick = SameDelay(QUICK, lambda wait: wait.set_result(False))
        self._threads = HandlerThreads()
        self._loop = HandlerLoop(max(concurrency, LEAST_EXECUTOR_THREADS))
        self._on_loop: set[RunningHandler] = set()
        self._batches: OpenBatches[RunningHandler] = OpenBatches(self._begin_batch)
        self._isolated = IsolatedPool(modules, max_result=max_result)
        self._isolation = isolation

    def start(
        self,
        job_type: JobTypeSpec,
        order: Order,
        context: Context,
        *,
        isolated: bool = False,
        span: ExecutionSpan | None = None,
    ) -> RunningHandler:
        """Start one execution of ``order``, including the conversion and check of its payload.

        After the order's timeout an ``async`` handler is cancelled and an isolated one is killed; a thread cannot be
        ended. ``isolated``: run it in a process, alone even if its type has a batch handler. ``span``: see ``Call``.
        """
        call = Call(job_type, order.payload, order.payload_version, context, self._max_result, span)
        if isolated and self._isolation:
            handler = RunningHandler("process", call, order.timeout, self._inbox)
            process = asyncio.create_task(self._isolated.run(job_type, order, context))
            process.add_done_callback(lambda _: handler.end(_result_of(process)))
            handler.request_end = process.cancel
            return handler
        if job_type.batch is not None:
            return self._join_batch(call, job_type.batch, order.timeout)
        return self._start_here(call, order.timeout)

    def _start_here(self, call: Call | BatchCall, timeout: float) -> RunningHandler:
        if call.job_type.is_async:
            handler = RunningHandler("loop", call, timeout, self._inbox)
            self._on_loop.add(handler)
            handler.add_done_callback(self._on_loop.discard)
            handler.request_end = self._loop.start(
                self._run_async(handler), handler, lambda task: self._end_if_not_run(handler, task)
            )
        else:
            handler = RunningHandler("thread", call, timeout, self._inbox)
            self._threads.start(lambda: _run_sync(handler))
        return handler

    def _join_batch(self, call: Call, batch: Batch, timeout: float) -> RunningHandler:
        """Let a job wait for the other jobs of its batch. Its timeout begins with the call of the handler."""
        name = call.job_type.name
        where: Literal["loop", "thread"] = "loop" if call.job_type.is_async else "thread"
        handler = RunningHandler(where, call, timeout + batch.within, self._inbox)

        def leave() -> None:
            if self._batches.remove(name, handler):
                handler.end(None)

        handler.request_end = leave
        # More jobs than slots never come: they would wait for nothing.
        most = min(batch.size, self._concurrency, call.job_type.concurrency or batch.size)
        self._batches.add(name, Batch(most, batch.within), handler)
        return handler

    def _begin_batch(self, jobs: list[RunningHandler]) -> None:
        """Call the handler for all jobs of a batch, whose ends follow from the end of that call."""
        calls = [job.call for job in jobs if isinstance(job.call, Call)]
        batch = calls[0].job_type.batch
        assert batch is not None
        call = BatchCall(calls)
        running = self._start_here(call, max(job.timeout for job in jobs) - batch.within)

        def leave() -> None:
            # The others need the call. A job that was cancelled keeps its slot until the call has ended.
            if all(job.end_requested for job in jobs):
                running.cancel()

        def end(_: object) -> None:
            for n, job in enumerate(jobs):
                if running.cancelled():
                    job.end(None)
                elif (error := running.exception()) is not None:
                    job.end(error)
                else:
                    job.end(call.outcomes[n] if call.outcomes else running.result())

        for job in jobs:
            job.batch = running
            job.request_end = leave
        running.add_done_callback(end)

    async def wait_for_outcome(self, handler: RunningHandler, on_slow: Callable[[], object] = lambda: None) -> Outcome:
        """Wait for the outcome of a handler that was just started, at most for its timeout and ``LONGEST_DELAY``.

        Calls ``on_slow`` when it takes longer than ``QUICK``. Raises ExecutionAborted, also when the handler ended on
        request.
        """
        began, blocked = time.monotonic(), self._loop.blocked
        if handler.timeout > QUICK and not await handler.ends_within(self._quick):
            on_slow()
        if handler.done():
            return self._result(handler)
        if handler.where != "loop":  # the pool applies a process's timeout, which begins when the process is ready
            end = began + handler.timeout
            await asyncio.wait({handler}, timeout=end - time.monotonic() if handler.where == "thread" else None)
            return self._result(handler)
        end = began + handler.timeout + LONGEST_DELAY
        while not handler.done():
            left = end - time.monotonic()
            if left <= 0:
                left += min(CREDIT, self._loop.blocked - blocked)
                if self._loop.silence > LONGEST_SILENCE:
                    culprit = self._loop.current_owner()
                    if culprit is (handler.batch or handler):
                        self._request_exit_of_loop(f"the handler of {handler.call.job_type.name} blocks", culprit)
                        break
                    if left <= 0:
                        if culprit not in self._on_loop:
                            self._request_exit_of_loop(
                                "a callback of a handler, or a task that one left behind, blocks"
                            )
                        raise _aborted_by_blocking(handler)
                elif left <= 0:
                    break
                left = min(left, POLL_INTERVAL)
            await asyncio.wait({handler}, timeout=left)
        return self._result(handler)

    @property
    def threads_left(self) -> int:
        """After ``close``: number of threads that still run functions of ``asyncio.to_thread``.

        Python would wait for them at the end of the process.
        """
        return self._loop.threads_left

    async def close(self) -> None:
        """Stop the loop and the processes. Threads in which handlers still run end with the process."""
        self._loop.stop()
        self._threads.close()
        await self._isolated.close()
        if self.threads_left:
            await asyncio.to_thread(self._loop.join_threads, CLOSE_TIMEOUT)

    def request_exit(self, why: str) -> None:
        """Declare that this process should end."""
        self.why_exit = f"{why}: this worker ends and has to be started again; a handler with isolate=True can be ended"
        log.error("%s", self.why_exit)
        self.exit_requested.set()

    def _result(self, handler: RunningHandler) -> Outcome:
        if not handler.done():
            return timed_out(handler.call.job_type, handler.timeout)
        if not handler.cancelled():
            return handler.result()
        if self.exit_requested.is_set():
            raise _aborted_by_blocking(handler)
        raise ExecutionAborted(f"the handler of {handler.call.job_type.name} was requested to end")

    def _request_exit_of_loop(self, what: str, culprit: RunningHandler | None = None) -> None:
        self.request_exit(f"{what} the loop of all async handlers beyond its timeout")
        for handler in self._on_loop - {culprit}:
            handler.abandon()

    async def _run_async(self, handler: RunningHandler) -> None:
        # It calls ``end`` itself, because a handler can change how its task ends.
        task = asyncio.current_task()
        assert isinstance(task, HandlerTask)

        def time_out() -> None:
            handler.timed_out = True
            task.cancel()

        stop_timer = self._loop.call_later(handler.timeout, time_out, credit=CREDIT)
        result: Outcome | BaseException | None
        try:
            result = await handler.call.run_async()
        except asyncio.CancelledError as error:
            result = self._ended_by_cancel(handler, task, error)
        except GeneratorExit as error:  # the handler closed the coroutine of its own task
            result = handler.call.failed(error)
        finally:
            stop_timer()
        handler.end(result)

    def _end_if_not_run(self, handler: RunningHandler, task: HandlerTask[None]) -> None:
        if not handler.ending:  # the task was cancelled before its first step
            handler.end(self._ended_by_cancel(handler, task, asyncio.CancelledError()))

    def _ended_by_cancel(
        self, handler: RunningHandler, task: HandlerTask[None], error: asyncio.CancelledError
    ) -> Outcome | ExecutionAborted | None:
        """Return the result of a handler that ended with ``error``. The module's text names the four cases."""
        if handler.end_requested:
            return None
        if handler.timed_out:
            return timed_out(handler.call.job_type, handler.timeout)
        if task.canceller not in (None, handler):
            return ExecutionAborted(f"another handler cancelled the task in which {handler.call.job_type.name} ran")
        return handler.call.failed(error)


def _run_sync(handler: RunningHandler) -> None:
    OWNER.set(handler)
    handler.end(handler.call.run())


def _aborted_by_blocking(handler: RunningHandler) -> ExecutionAborted:
    return ExecutionAborted(f"another handler blocked the loop on which {handler.call.job_type.name} ran")


def _result_of(process: "asyncio.Task[Outcome]") -> "Outcome | BaseException | None":
    if process.cancelled():
        return None
    return process.exception() or process.result()
