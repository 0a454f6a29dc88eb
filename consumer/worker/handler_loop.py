"""The event loop on which ``async`` handlers run, in a thread of its own; and who blocks it when it does not answer.

A handler that blocks takes the time of all the others. So the loop counts how long it was blocked, which is not to be
charged to those who waited, and names the handler that blocks it now: seen from outside, since inside nothing runs.

The loop and its threads are shared, what runs there is not: each execution has a context of its own, and a task that
remembers who cancelled it last. No handler may stop or close the loop.
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
from weakref import WeakKeyDictionary

from jobtape import forks

log = logging.getLogger(__name__)

T = TypeVar("T")

BEAT: Final = 0.2
"""Seconds between two signs of life."""
BLOCKED: Final = 0.2
"""Seconds by which a sign of life must be late to count."""
OWNER: Final[ContextVar[object]] = ContextVar("jobtape_execution", default=None)
"""What the code that runs now was begun for: an execution, or None outside of all."""
FORBIDDEN: Final = ("stop", "close", "shutdown_default_executor")
"""What would end the loop for all who run on it."""


class HandlerTask(asyncio.Task[T]):
    """An execution's own task. ``canceller``: the owner of the code that cancelled it last; None when it has none."""

    canceller: object = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, and remember who did."""
        self.canceller = OWNER.get()
        return super().cancel(msg)


class HandlerLoop:
    """Runs from its creation until ``stop``. An *owner* is what a task was begun for; what that starts has it too.
    ``threads``: how many functions that handlers hand to ``asyncio.to_thread`` may run at once.
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
        self._owners: WeakKeyDictionary[asyncio.Future[Any], object] = WeakKeyDictionary()
        self._beat = time.monotonic()
        self._blocked = 0.0
        self._pid = os.getpid()
        forks.on_fork(self, lambda handlers: forks.detach_loop(handlers._loop, sockets=False))
        threading.Thread(target=self._run, name="handlers", daemon=True).start()

    @property
    def silence(self) -> float:
        """For how many seconds it has not answered; 0 when it is late by no more than that may be."""
        late = time.monotonic() - self._beat - BEAT
        return late if late > BLOCKED else 0.0

    @property
    def blocked(self) -> float:
        """For how many seconds it was blocked until now, in all its life."""
        return self._blocked + self.silence

    @property
    def threads_left(self) -> int:
        """How many threads still run what handlers gave to ``asyncio.to_thread``, or wait for more."""
        return len(self._executor.alive())

    def running(self) -> object:
        """The owner of what runs at this moment; None when nothing does, or a callback that nobody owns."""
        task = asyncio.current_task(self._loop)
        return None if task is None else self._owners.get(task)

    def begin(
        self, coroutine: Coroutine[Any, Any, T], owner: object, ended: Callable[[HandlerTask[T]], object]
    ) -> Callable[[], None]:
        """Run it as a task in an empty context; ``ended`` is called there when it is done. What is returned cancels the
        task.
        """
        begun: list[HandlerTask[T]] = []

        def begin() -> None:
            # Not a copy of this context: a copy refers to the same decimal context, which handlers change in place.
            context = Context()
            context.run(OWNER.set, owner)
            task = HandlerTask(coroutine, loop=self._loop, context=context)
            self._owners[task] = owner
            begun.append(task)
            task.add_done_callback(ended)
            # An owner keeps what cancels its task. If that still led to the task, which is the weak key under which the
            # owner is kept, neither would ever be let go.
            task.add_done_callback(lambda _: begun.clear())

        def cancel() -> None:
            self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in begun])  # behind ``begin``

        self._loop.call_soon_threadsafe(begin)
        return cancel

    def call_later(self, seconds: float, callback: Callable[[], object], *, credit: float) -> Callable[[], None]:
        """Call it in so many seconds, to which those are added in which the loop was blocked meanwhile, ``credit`` at
        most. To be used on this loop. What is returned calls it off.
        """
        end, blocked = self._loop.time() + seconds, self.blocked

        timers: list[asyncio.TimerHandle] = []

        def look() -> None:
            due = end + min(credit, self.blocked - blocked)
            if due > self._loop.time():
                timers[:] = [self._loop.call_at(due, look)]
            else:
                callback()

        timers.append(self._loop.call_at(end, look))

        def call_off() -> None:
            timers[0].cancel()

        return call_off

    def stop(self) -> None:
        """Run nothing more, as soon as what runs lets it."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._stop_loop)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join_threads(self, seconds: float) -> None:
        """After ``stop``: wait until those threads have ended, so many seconds at most."""
        end = time.monotonic() + seconds
        for thread in self._executor.alive():
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        """Until it is stopped: a SystemExit in a task or callback of a handler also ends ``run_forever``, as if this
        were a program's main loop, and the handlers of all other jobs with it.
        """
        self._loop.call_soon(self._tick)
        while not self._stopping:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - a task keeps it, for whoever awaits it
                forks.exit_if_child(self._pid, error, awaited=True)
                log.warning("a task or a callback of a handler raised %s; the other jobs go on", type(error).__name__)
        for name in FORBIDDEN:
            delattr(self._loop, name)

    def _tick(self) -> None:
        self._blocked += self.silence
        self._beat = time.monotonic()
        self._loop.call_later(BEAT, self._tick)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **kwargs)
        context = kwargs.get("context")
        self._owners[task] = OWNER.get() if context is None else context.get(OWNER)
        return task


class _ContextExecutor(ThreadPoolExecutor):
    """Runs each function in a copy of its caller's context: what it sets stays in no thread."""

    def __init__(self, threads: int) -> None:
        self._started: list[threading.Thread] = []
        super().__init__(threads, "handlers_executor", lambda: self._started.append(threading.current_thread()))

    def alive(self) -> list[threading.Thread]:
        """Those of its threads that have not ended."""
        return [thread for thread in self._started if thread.is_alive()]

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As every executor does."""
        return super().submit(copy_context().run, function, *args, **kwargs)


def _refusal(name: str) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(
            f"loop.{name}() is not for a handler: all async handlers of this worker run on this loop. To end this "
            "handler, return or raise; for a loop of your own, use asyncio.run in a def handler"
        )

    return refuse
