"""The threads in which ``def`` handlers run: a new one for each execution.

A thread has much that one execution must not leave to the next: context variables, the decimal context, thread-local
values, its event loop, its trace function. All of it ends with the thread.

Theory of operation. One thread waits for work. As soon as it has some it starts its successor, then works, then ends.
So nobody who hands in work waits until a thread has started, which takes long where other threads compute.
"""

import itertools
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)


class HandlerThreads:
    """Ready from its creation until ``close``."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._numbers = itertools.count()
        self._start()

    def begin(self, work: Callable[[], None]) -> None:
        """Run it in a thread of its own, at once. It must not raise."""
        self._work.put(work)

    def close(self) -> None:
        """Begin nothing more; what runs is left to the end of the process."""
        self._work.put(None)

    def _start(self) -> None:
        # A daemon thread: the process need not wait for it. ``Worker.stuck_handlers`` counts those that have not ended.
        threading.Thread(target=self._serve, name=f"job_{next(self._numbers)}", daemon=True).start()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._start()
            except (RuntimeError, MemoryError) as error:
                log.warning("no new thread for the next handler, so this one is used once more: %s", error)
                work()
            else:
                return work()
