"""The event loop of an isolated process: one for all its jobs, so that what belongs to a loop can be kept between them.

An HTTP client, a lock or a queue at the top of a module is bound to the loop on which it was first used. What a job
started ends with it nevertheless: its tasks are cancelled, its async generators closed, its threads waited for.
"""

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, Final, TypeVar

from jobtape import forks

log = logging.getLogger(__name__)

T = TypeVar("T")

ROUNDS: Final = 3
"""How often tasks are cancelled that were started while others were."""


class IsolatedLoop:
    """To be used from one thread. The loop is made for the first job that needs one."""

    def __init__(self) -> None:
        self.spent = False
        """Whether something of a job may still run here: another process should do the next one."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, T], context: Context) -> T:
        """What ``coroutine`` returns or raises, run in ``context``, when all that it started has ended too."""
        loop = self._opened()
        asyncio.set_event_loop(loop)  # a handler may have set another one
        executor = _Executor(thread_name_prefix="asyncio")
        loop.set_default_executor(executor)
        task = loop.create_task(coroutine, context=context)
        self._drive(loop, task)
        self._drive(loop, loop.create_task(self._end_all(executor)))
        return task.result()

    def _opened(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            forks.on_fork(self, IsolatedLoop._leave)
            # It is said of each generator that begins after the generators of an earlier job were closed.
            warnings.filterwarnings("ignore", "asynchronous generator .* was scheduled after", ResourceWarning)
        return self._loop

    def _drive(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
        """Run until ``task`` is done. A SystemExit of another task ends ``run_until_complete`` too, as if this were a
        program's main loop.
        """
        while not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException as error:
                forks.exit_if_child(self._pid, error, awaited=True)
                if loop.is_closed():
                    raise
                if isinstance(error, KeyboardInterrupt):
                    task.cancel()
                elif not task.done():
                    log.warning("a task that a handler started raised %s; the job goes on", type(error).__name__)

    async def _end_all(self, executor: "_Executor") -> None:
        for _ in range(ROUNDS):
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
            ended = loop.create_future()

            def wait() -> None:
                executor.shutdown(wait=True)
                loop.call_soon_threadsafe(ended.set_result, None)

            threading.Thread(target=wait, name="end of asyncio's threads", daemon=True).start()
            await ended
        self.spent = len(asyncio.all_tasks()) > 1

    def _leave(self) -> None:
        if self._loop is not None:
            forks.detach_loop(self._loop, sockets=False)


class _Executor(ThreadPoolExecutor):
    """Knows whether it was ever used."""

    used = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """As every executor does."""
        self.used = True
        return super().submit(function, *args, **kwargs)
