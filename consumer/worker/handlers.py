"""Runs the users' handlers, where they cannot hurt the connection.

``async def`` handlers run on an event loop in a thread of its own, ``def`` handlers in a thread each, isolated ones
in processes; the loop that keeps the AMQP connection alive runs no user code. So a handler that blocks costs its
neighbours time, and never the heartbeat.

A cancelled ``async`` handler has ended in one of four ways, and what is noted outside of its task says in which
(``Handlers._ended_by_cancel``): the task's own count may be changed by the handler. The worker asked for it; its time
was over; another handler cancelled it, so it is to be done again; or it did that itself, and has failed.

Time in which the handlers' loop was blocked is not charged to those who waited for it, up to CREDIT. A handler that
still blocks it when its own time is over can be ended by nobody: it fails, the loop is given up (``given_up``) with all
that runs on it, and those executions are undone: to be done again, by a worker whose loop answers. So it is where what
blocks the loop belongs to no execution (a callback, a task that a handler left behind) and the credit is used up.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Outcome, timed_out
from jobtape.consumer.worker.handler_loop import OWNER, HandlerLoop, HandlerTask
from jobtape.consumer.worker.handler_threads import HandlerThreads
from jobtape.consumer.worker.isolated.pool import IsolatedPool
from jobtape.schemas.context import Context
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import JobTypeSpec

log = logging.getLogger(__name__)

LATE = 5.0
"""Seconds beyond its time-out until a handler that does not end is given up."""
CREDIT = 30.0
"""Seconds at most that a handler gets back for those in which another one blocked the loop."""
SILENT: Final = 1.0
"""Seconds without an answer after which the handlers' loop counts as blocked now."""
LOOK: Final = 0.5
LEAST_EXECUTOR_THREADS: Final = 32
"""Threads, at the least, for the functions that handlers give to ``asyncio.to_thread``."""
CLOSE_LIMIT: Final = 1.0
"""Seconds for those threads to end when this is closed."""

Where = Literal["loop", "thread", "process"]


class ExecutionUndone(Exception):
    """An execution that came to nothing through no fault of its own: neither failed nor counted, to be done again."""


class RunningHandler(asyncio.Future[Outcome]):
    """A handler at work, seen from the worker's loop. ``cancel`` only asks (``ask``) the handler to end: as long as it
    runs it keeps its slot. Cancelled itself when the handler ended as it was asked to.
    """

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.ask: Callable[[], object] = lambda: None
        self.asked = False
        """Whether the worker asked the handler to end."""
        self.timed_out = False
        """Whether the handler was cancelled because its time was over."""
        self.ending = False
        """Whether ``end`` was called."""

    def cancel(self, msg: Any = None) -> bool:
        """Ask; False when it has ended already."""
        if self.done():
            return False
        self.asked = True
        self.ask()
        return True

    def abandon(self) -> None:
        """It is not waited for any longer."""
        super().cancel()

    def end(self, how: "Outcome | BaseException | None") -> None:
        """No handler runs any more: with an outcome, with none (an error, such as Undone), or as it was asked to
        (None). Callable from any thread; only the first call counts.
        """
        if self.ending:
            return
        self.ending = True
        with contextlib.suppress(RuntimeError):  # the worker's loop has ended while a handler still ran
            self.get_loop().call_soon_threadsafe(self._end, how)

    def _end(self, how: "Outcome | BaseException | None") -> None:
        if self.done():
            return
        if how is None:
            super().cancel()
        elif isinstance(how, BaseException):
            self.set_exception(how)
            if isinstance(how, ExecutionUndone):
                self.exception()  # it may come after the time-out, when nobody asks any more, and is no fault to log
        else:
            self.set_result(how)


class Handlers:
    """``concurrency``: how many handlers may run at once; ``max_result``: bytes of JSON; ``modules``: where the job
    types are, for the processes of isolated handlers to import.
    """

    def __init__(self, *, concurrency: int, max_result: int, modules: Sequence[str] = ()) -> None:
        self.given_up = asyncio.Event()
        """Set when handlers cannot be ended that leave nothing to work with: this process should end."""
        self.why_given_up = ""
        self._max_result = max_result
        self._threads = HandlerThreads()
        self._loop = HandlerLoop(max(concurrency, LEAST_EXECUTOR_THREADS))
        self._on_loop: set[RunningHandler] = set()
        self._isolated = IsolatedPool(modules, max_result=max_result)

    def start(self, job_type: JobTypeSpec, order: Order, context: Context) -> RunningHandler:
        """Begin one execution of ``order``; lifting and checking its payload is part of it, since that runs code of the
        users'.

        The future never raises, and is done when no handler runs any more; cancelling it asks the handler to end, as
        cancelling a task does.

        An ``async`` handler is cancelled after the order's time-out. A thread cannot be ended: it is asked in vain.
        """
        if job_type.is_async:
            working = RunningHandler("loop")
            self._on_loop.add(working)
            working.add_done_callback(self._on_loop.discard)
            call = self._call(job_type, order, context)
            working.ask = self._loop.begin(
                self._run_async(call, order.timeout, working),
                working,
                lambda task: self._end_unrun(call, order.timeout, working, task),
            )
        else:
            working = RunningHandler("thread")
            call = self._call(job_type, order, context)
            self._threads.begin(lambda: self._run_sync(call, working))
        return working

    def start_isolated(self, job_type: JobTypeSpec, order: Order, context: Context) -> RunningHandler:
        """Begin one execution in a process of its own. It is killed after the order's time-out, and when it is asked to
        end.
        """
        working = RunningHandler("process")
        task = asyncio.create_task(self._isolated.run(job_type, order, context))
        task.add_done_callback(lambda _: working.end(_how(task)))
        working.ask = task.cancel
        return working

    async def outcome(self, working: RunningHandler, job_type: JobTypeSpec, timeout: float) -> Outcome:
        """What became of it. Raises Undone, also when it ended as it was asked to while this waits for it."""
        if working.where == "process":  # it keeps its time itself, and begins to count when the process is there
            await asyncio.wait({working})
            return self._result(working, job_type)
        begun, blocked = time.monotonic(), self._loop.blocked
        late = LATE if working.where == "loop" else 0.0
        while True:
            left = begun + timeout + late - time.monotonic()
            if left <= 0:
                if working.where == "thread":
                    return timed_out(job_type, timeout)
                left += min(CREDIT, self._loop.blocked - blocked)
                if self._loop.silence > SILENT:
                    culprit = self._loop.running()
                    if culprit is working:
                        self._give_up_loop(f"the handler of {job_type.name} blocks", working)
                        return timed_out(job_type, timeout)
                    if left <= 0:
                        if culprit not in self._on_loop:
                            self._give_up_loop("a callback of a handler, or a task that one left behind, blocks")
                        raise ExecutionUndone(f"another handler blocked the loop on which {job_type.name} ran")
                elif left <= 0:
                    return timed_out(job_type, timeout)
                left = min(left, LOOK)
            done, _ = await asyncio.wait({working}, timeout=left)
            if done:
                return self._result(working, job_type)

    @property
    def threads_left(self) -> int:
        """After ``close``: how many threads do not end in which functions run that handlers gave to
        ``asyncio.to_thread``. Python would wait for them at the end of the process.
        """
        return self._loop.threads_left

    async def close(self) -> None:
        """Stop; what still runs in threads is left to the end of the process."""
        self._loop.stop()
        self._threads.close()
        await self._isolated.close()
        if self.threads_left:
            await asyncio.to_thread(self._loop.join_threads, CLOSE_LIMIT)

    def _result(self, working: RunningHandler, job_type: JobTypeSpec) -> Outcome:
        if not working.cancelled():
            return working.result()
        if self.given_up.is_set():
            raise ExecutionUndone(f"another handler blocked the loop on which {job_type.name} ran")
        raise ExecutionUndone(f"the handler of {job_type.name} was asked to end")

    def give_up(self, why: str) -> None:
        """This process should end."""
        self.why_given_up = (
            f"{why}: this worker ends and has to be started again; isolate=True makes a handler one that can be ended"
        )
        log.error("%s", self.why_given_up)
        self.given_up.set()

    def _give_up_loop(self, what: str, culprit: RunningHandler | None = None) -> None:
        self.give_up(f"{what} the loop of all async handlers beyond its time-out")
        for working in self._on_loop - {culprit}:
            working.abandon()

    def _call(self, job_type: JobTypeSpec, order: Order, context: Context) -> Call:
        return Call(job_type, order.payload, order.payload_version, context, self._max_result)

    async def _run_async(self, call: Call, timeout: float, working: RunningHandler) -> None:
        """Ends ``working`` itself: what a handler did to its task may change how the task ends."""
        task = asyncio.current_task()
        assert isinstance(task, HandlerTask)

        def time_out() -> None:
            working.timed_out = True
            task.cancel()

        stop_timer = self._loop.call_later(timeout, time_out, credit=CREDIT)
        how: Outcome | BaseException | None
        try:
            how = await call.run_async()
        except asyncio.CancelledError as error:
            how = self._ended_by_cancel(call, timeout, working, task, error)
        except GeneratorExit as error:  # the handler closed the coroutine of its own task
            how = call.failed(error)
        finally:
            stop_timer()
        working.end(how)

    def _end_unrun(self, call: Call, timeout: float, working: RunningHandler, task: HandlerTask[None]) -> None:
        """End what ``_run_async`` has not: its task was cancelled before it ran."""
        if not working.ending:
            working.end(self._ended_by_cancel(call, timeout, working, task, asyncio.CancelledError()))

    def _ended_by_cancel(
        self,
        call: Call,
        timeout: float,
        working: RunningHandler,
        task: HandlerTask[None],
        error: asyncio.CancelledError,
    ) -> Outcome | ExecutionUndone | None:
        """What it means that a handler ended with ``error``; see above for the four ways."""
        if working.asked:
            return None
        if working.timed_out:
            return timed_out(call.job_type, timeout)
        if task.canceller not in (None, working):
            return ExecutionUndone(f"another handler cancelled the task in which {call.job_type.name} ran")
        return call.failed(error)

    def _run_sync(self, call: Call, working: RunningHandler) -> None:
        OWNER.set(working)
        working.end(call.run())


def _how(task: "asyncio.Task[Outcome]") -> "Outcome | BaseException | None":
    """How an isolated execution ended."""
    if task.cancelled():
        return None
    return task.exception() or task.result()
