"""The threads in which ``def`` handlers run.

Theory of operation. A thread that runs a handler leaves nothing to the next one: each handler runs in an empty context,
and a thread in which a handler has left thread-local values, an event loop, a trace function or a name is not used
again (``_Traces``). Any other thread is, because the start of a thread costs more than a short job.

Handlers are started in bulk. One thread is woken for all that are started in one pass of the worker's event loop, and
runs one after the other, so short ones cost no switch between threads. What still waits after ``SPREAD`` seconds, since
the handler before it takes longer, gets a thread each. One thread always waits for work: the last one that is
woken first starts another. So no handler waits for the start of a thread, which takes long while others compute.
"""

import asyncio
import contextvars
import ctypes
import itertools
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

log = logging.getLogger(__name__)

SPREAD: Final = 0.002
"""Seconds that a handler waits at most for the end of another one that was started before it."""
HARMLESS: Final = frozenset({"Py_Repr"})
"""What Python itself keeps in the dictionary of a thread's local values: the containers of which it makes a text."""


class HandlerThreads:
    """Runs each ``def`` handler in a thread that has nothing of earlier ones. Belongs to the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: deque[Callable[[], None]] = deque()
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        """Each item wakes a thread: True to work, False to end."""
        self._waking = False
        """Whether a thread was woken that has not looked for work yet."""
        self._spreading = False
        self._lock = threading.Lock()
        self._idle = 0
        """How many threads wait for work."""
        self._numbers = itertools.count()
        self._start_thread()

    def start(self, work: Callable[[], None]) -> None:
        """Run ``work``, which must not raise, in a thread. Must be called on the event loop."""
        self._work.append(work)
        if not self._waking:
            self._waking = True
            self._wakes.put(True)
        if not self._spreading:
            self._spreading = True
            self._loop.call_later(SPREAD, self._spread)

    def close(self) -> None:
        """Start nothing more. Threads that still run end with the process."""
        self._work.clear()
        self._wakes.put(False)

    def _spread(self) -> None:
        waiting = len(self._work)
        for _ in range(waiting - self._wakes.qsize()):
            self._wakes.put(True)
        self._spreading = waiting > 0
        if waiting:
            self._loop.call_later(SPREAD, self._spread)

    def _start_thread(self) -> None:
        with self._lock:
            self._idle += 1
        try:
            # A daemon thread: the process does not wait for it. ``Worker.stuck_handlers`` counts those that do not end.
            threading.Thread(target=self._serve, name=f"job_{next(self._numbers)}", daemon=True).start()
        except BaseException:
            with self._lock:
                self._idle -= 1
            raise

    def _serve(self) -> None:
        traces = _Traces()
        while self._wakes.get():
            self._waking = False
            if not self._work:
                continue
            with self._lock:
                self._idle -= 1
            replaced = self._replace()
            while self._work:
                try:
                    work = self._work.popleft()
                except IndexError:  # another thread was faster
                    break
                contextvars.Context().run(work)
                del work
                if traces.found() and (replaced or self._replace()):
                    if self._work:
                        self._wakes.put(True)
                    return
            with self._lock:
                self._idle += 1
        self._wakes.put(False)  # for the next thread

    def _replace(self) -> bool:
        """Start a thread if none waits. Return whether one waits."""
        if self._idle:
            return True
        try:
            self._start_thread()
        except (RuntimeError, MemoryError) as error:
            log.warning("no new thread for the next handler, so this one is used once more: %s", error)
            return False
        return True


class _Traces:
    """What handlers have left in the thread that makes this object, and that the next handler would find."""

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._attributes = dict(vars(self._thread))
        self._hooks = _hooks()
        self._locals = _thread_locals()

    def found(self) -> bool:
        """Return whether a handler has left something. Always true where Python does not show a thread's values."""
        return (
            self._locals is None
            or not self._locals.keys() <= HARMLESS
            or _hooks() != self._hooks
            or vars(self._thread) != self._attributes
        )


def _hooks() -> tuple[Any, ...]:
    return sys.gettrace(), sys.getprofile(), sys.get_asyncgen_hooks()


def _thread_locals() -> dict[Any, Any] | None:
    """Return the dictionary in which CPython keeps the thread's ``threading.local`` values and its running event
    loop.
    """
    try:
        # As an object it would be freed once too often, because the reference is borrowed.
        address = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThreadState_GetDict", ctypes.pythonapi))()
    except AttributeError:
        return None
    return None if address is None else ctypes.cast(address, ctypes.py_object).value
