"""The event loop on which ``async`` handlers run, in a thread of its own; and who blocks it when it does not answer.

A handler that blocks takes the time of all the others. So the loop counts how long it was blocked, which is not to be
charged to those who waited, and names the handler that blocks it now: seen from outside, since inside nothing runs.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from jobtape import forks

log = logging.getLogger(__name__)

T = TypeVar("T")

BEAT: Final = 0.2
"""Seconds between two signs of life."""
BLOCKED: Final = 0.2
"""Seconds by which a sign of life must be late to count."""


class HandlersLoop:
    """Runs from its creation until ``stop``. An *owner* is what a task was begun for; what that starts has it too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(self._make_task)
        self._owner: ContextVar[object] = ContextVar("owner", default=None)
        self._owners: WeakKeyDictionary[asyncio.Future[Any], object] = WeakKeyDictionary()
        self._beat = time.monotonic()
        self._blocked = 0.0
        self._pid = os.getpid()
        forks.in_child(self, lambda handlers: forks.leave_loop(handlers._loop, sockets=False))
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

    def running(self) -> object:
        """The owner of what runs at this moment; None when nothing does, or a callback that nobody owns."""
        task = asyncio.current_task(self._loop)
        return None if task is None else self._owners.get(task)

    def begin(
        self, coroutine: Coroutine[Any, Any, T], owner: object, ended: "Callable[[asyncio.Task[T]], object]"
    ) -> Callable[[], None]:
        """Run it as a task; ``ended`` is called there when it is done. What is returned cancels the task."""
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            self._owner.set(owner)  # in the context of this callback, which the task takes a copy of
            task = self._loop.create_task(coroutine)
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
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        """Until it is stopped: a SystemExit in a task that a handler started also ends ``run_forever``, as if this
        were a program's main loop, and the handlers of all other jobs with it.
        """
        self._loop.call_soon(self._tick)
        while True:
            try:
                return self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - the task keeps it, for whoever awaits it
                forks.end_child(self._pid, forks.awaited(error))
                log.warning("a task that a handler started raised %r; the other jobs go on", error)

    def _tick(self) -> None:
        self._blocked += self.silence
        self._beat = time.monotonic()
        self._loop.call_later(BEAT, self._tick)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **kwargs)
        context = kwargs.get("context")
        self._owners[task] = self._owner.get() if context is None else context.get(self._owner)
        return task
