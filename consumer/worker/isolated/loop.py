"""The event loop of a process for isolated handlers: one for all its jobs.

So an HTTP client, a lock or a queue at the top of a module, which is bound to the loop that first used it, can be kept
between jobs. What a job started ends with the job: its tasks are cancelled, its async generators are closed, and its
threads are waited for.
"""

import asyncio
import logging
import os
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, Final, TypeVar

from jobtape.process import forks

log = logging.getLogger(__name__)

T = TypeVar("T")

CANCEL_ROUNDS: Final = 3
"""How often tasks are cancelled that were started while others were cancelled."""


class IsolatedLoop:
    """Must be used from one thread. The loop is made for the first job that needs one."""

    def __init__(self) -> None:
        self.still_busy = False
        """Whether tasks of a job still run here, so that another process should run the next job."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, T], context: Context) -> T:
        """Run ``coroutine`` in ``context``, end all that it started, and return its result or raise its error."""
        loop = self._opened()
        asyncio.set_event_loop(loop)  # a handler may have set another one
        executor = _Executor(thread_name_prefix="asyncio")
        loop.set_default_executor(executor)
        task = loop.create_task(coroutine, context=context)
        self._run_until_done(loop, task)
        self._run_until_done(loop, loop.create_task(self._end_all(executor)))
        return task.result()

    def _opened(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            forks.on_fork(self, IsolatedLoop._detach)
            # asyncio warns of each generator that is started after the generators of an earlier job were closed.
            warnings.filterwarnings("ignore", "asynchronous generator .* was scheduled after", ResourceWarning)
        return self._loop

    def _run_until_done(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
        while not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException as error:  # a SystemExit of another task ends ``run_until_complete`` too
                forks.exit_if_child(self._pid, error, awaited=True)
                if loop.is_closed():
                    raise
                if isinstance(error, KeyboardInterrupt):
                    task.cancel()
                elif not task.done():
                    log.warning("a task that a handler started raised %s; the job goes on", type(error).__name__)

    async def _end_all(self, executor: "_Executor") -> None:
        for _ in range(CANCEL_ROUNDS):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                    log.warning("a task that a handler left behind ended with %s", type(result).__name__)
            if not tasks:
                break
        loop = asyncio.get_running_loop()
        await loop.shutdown_asyncgens()
        if executor.used:
            with ThreadPoolExecutor(1) as waiter:
                await loop.run_in_executor(waiter, executor.shutdown)
        self.still_busy = len(asyncio.all_tasks()) > 1

    def _detach(self) -> None:
        if self._loop is not None:
            forks.detach_loop(self._loop, sockets=False)


class _Executor(ThreadPoolExecutor):
    """Remembers whether it was used."""

    used = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        self.used = True
        return super().submit(function, *args, **kwargs)
