"""Hands the memory of streams that have ended back to the system.

Theory of operation. A thousand streams are some thirty megabytes. Their objects refer to each other in circles, which
Python looks for seldom, and the C library keeps what was freed. So once many have ended, and a little later, since the
others mostly follow, both are done: a full collection, then ``malloc_trim`` (glibc; elsewhere the collection alone).
The loop stands still for that, for about a tenth of a second where Jobtape is all that the process has.

Python's own allocator for small objects gives back whole megabytes only, and hardly one of them ever is quite free.
With ``PYTHONMALLOC=malloc``, as ``jobtape up`` and the Compose file start an API, the C library has those too.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Final

MANY: Final = 100
"""Streams that must have ended for it to be worth while."""
PAUSE: Final = 5.0
"""Seconds from there until it is done; so it is not done more often either."""


class MemoryTrimmer:
    """In a running loop."""

    def __init__(self, *, many: int = MANY, pause: float = PAUSE) -> None:
        self._many = many
        self._pause = pause
        self._left = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def stream_ended(self) -> None:
        """One more."""
        self._left += 1
        if self._left >= self._many and not self.due and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._hand_back)

    @property
    def due(self) -> bool:
        """Whether it is about to be done."""
        return self._timer is not None

    def close(self) -> None:
        """Do nothing more."""
        self._closed = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _hand_back(self) -> None:
        self._timer = None
        self._left = 0
        gc.collect()
        _trim()


def _find_trim() -> Callable[[], object]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return lambda: None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)


_trim = _find_trim()
