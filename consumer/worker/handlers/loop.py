"""The event loop on which ``async`` handlers run, in a thread of its own.

A handler that blocks the loop takes time from all the others. So the loop counts for how long it was blocked, because
this time is not charged to those that waited. It also finds out from another thread which handler blocks it.

Executions share the loop and its threads, but each one has its own context, and a task that remembers who cancelled it
last. Handlers cannot stop or close the loop.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar

from jobtape.consumer.worker.handlers.loop_inbox import LoopInbox
from jobtape.process import forks

log = logging.getLogger(__name__)

T = TypeVar("T")

BEAT: Final = 0.2
"""Seconds between two heartbeats of the loop."""
LATE_BEAT: Final = 0.2
"""Seconds by which a heartbeat must be late to count as blocked."""
OWNER: Final[ContextVar[object]] = ContextVar("jobtape_execution", default=None)
"""The execution to which the running code belongs; None outside of all executions."""
FORBIDDEN: Final = ("stop", "close", "shutdown_default_executor")
"""Methods that would end the loop for all handlers."""


class OwnedTask(asyncio.Task[T]):
    """A task on the handlers' loop. ``owner`` is the execution for which it was started; None outside of all."""

    owner: object = None


class HandlerTask(OwnedTask[T]):
    """The task of an execution. ``canceller`` is the owner of the code that cancelled it last, or None."""

    canceller: object = None

    def cancel(self, msg: Any | None = None) -> bool:
        self.canceller = OWNER.get()
        return super().cancel(msg)


class HandlerLoop:
    """Runs from its creation until ``stop``.

    The *owner* of a task is the execution for which it was started; tasks that the task starts have the same owner.
    ``threads``: how many functions of ``asyncio.to_thread`` may run at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(self._make_task)
        self._executor = _ContextExecutor(threads)
        self._loop.set_default_executor(self._executor)
        self._stop_loop = self._loop.stop
        for name in FORBIDDEN:
            setattr(self._loop, name, _refusal(name))
        self._stopping = False
        self._inbox = LoopInbox(self._loop)
        self._last_beat = time.monotonic()
        self._blocked = 0.0
        self._pid = os.getpid()
        forks.on_fork(self, lambda handlers: forks.detach_loop(handlers._loop, sockets=False))
        threading.Thread(target=self._run, name="handlers", daemon=True).start()

    @property
    def silence(self) -> float:
        """Seconds for which the loop has been blocked until now; 0 when it runs."""
        late = time.monotonic() - self._last_beat - BEAT
        return late if late > LATE_BEAT else 0.0

    @property
    def blocked(self) -> float:
        """Seconds for which the loop was blocked since its start."""
        return self._blocked + self.silence

    @property
    def threads_left(self) -> int:
        """Number of threads that run functions of ``asyncio.to_thread``, or wait for more."""
        return len(self._executor.alive())

    def current_owner(self) -> object:
        """Return the owner of the task that runs now; None when no task runs, or a callback."""
        task = asyncio.current_task(self._loop)
        return task.owner if isinstance(task, OwnedTask) else None

    def start(
        self, coroutine: Coroutine[Any, Any, T], owner: object, on_end: Callable[[HandlerTask[T]], object]
    ) -> Callable[[], None]:
        """Run ``coroutine`` as a task in an empty context, and return a function that cancels it.

        ``on_end`` is called on the loop with the task when it is done.
        """
        started: list[HandlerTask[T]] = []

        def start() -> None:
            # Not a copy of this context: a copy refers to the same decimal context, which handlers change in place.
            context = Context()
            context.run(OWNER.set, owner)
            task = HandlerTask(coroutine, loop=self._loop, context=context)
            task.owner = owner
            started.append(task)
            task.add_done_callback(ended)

        def ended(task: HandlerTask[T]) -> None:
            on_end(task)
            started.clear()  # the owner keeps ``cancel``, and the task keeps the owner

        def cancel() -> None:
            self._inbox.put(lambda: [task.cancel() for task in started])

        self._inbox.put(start)
        return cancel

    def call_later(self, seconds: float, callback: Callable[[], object], *, credit: float) -> Callable[[], None]:
        """Call ``callback`` after ``seconds`` on the loop, and return a function that prevents it.

        Seconds in which the loop was blocked meanwhile are added, ``credit`` at most. Must be called on the loop.
        """
        end, blocked = self._loop.time() + seconds, self.blocked
        timers: list[asyncio.TimerHandle] = []

        def check() -> None:
            due = end + min(credit, self.blocked - blocked)
            if due > self._loop.time():
                timers[:] = [self._loop.call_at(due, check)]
            else:
                callback()

        def cancel() -> None:
            timers[0].cancel()

        timers.append(self._loop.call_at(end, check))
        return cancel

    def stop(self) -> None:
        """Stop the loop as soon as the running code allows it."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._stop_loop)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join_threads(self, seconds: float) -> None:
        """After ``stop``: wait at most ``seconds`` until the threads of ``asyncio.to_thread`` have ended."""
        end = time.monotonic() + seconds
        for thread in self._executor.alive():
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        self._loop.call_soon(self._beat)
        while not self._stopping:  # a SystemExit in a handler's task or callback ends ``run_forever``
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - the task keeps it, for code that awaits it
                forks.exit_if_child(self._pid, error, awaited=True)
                log.warning("a task or a callback of a handler raised %s; the other jobs go on", type(error).__name__)
        for name in FORBIDDEN:
            delattr(self._loop, name)

    def _beat(self) -> None:
        self._blocked += self.silence
        self._last_beat = time.monotonic()
        self._loop.call_later(BEAT, self._beat)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        task: OwnedTask[Any] = OwnedTask(coroutine, loop=loop, **kwargs)
        context = kwargs.get("context")
        task.owner = OWNER.get() if context is None else context.get(OWNER)
        return task


class _ContextExecutor(ThreadPoolExecutor):
    """Runs each function in a copy of its caller's context, so that nothing it sets stays in a thread."""

    def __init__(self, threads: int) -> None:
        self._started: list[threading.Thread] = []
        super().__init__(threads, "handlers_executor", lambda: self._started.append(threading.current_thread()))

    def alive(self) -> list[threading.Thread]:
        return [thread for thread in self._started if thread.is_alive()]

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return super().submit(copy_context().run, function, *args, **kwargs)


def _refusal(name: str) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(
            f"a handler may not call loop.{name}(), because all async handlers of this worker run on this loop. To end "
            "this handler, return or raise; for a loop of your own, use asyncio.run in a def handler"
        )

    return refuse
