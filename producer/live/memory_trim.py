"""Returns the memory of streams that have ended to the system.

Theory of operation. A thousand streams take some thirty megabytes. Their objects refer to each other in cycles, which
Python collects rarely, and the C library keeps what was freed. So a few seconds after many have ended, because others
mostly follow, this runs a full collection and then ``malloc_trim`` (glibc; with other C libraries the collection only).
The loop stands still meanwhile, for about a tenth of a second when the process contains nothing but Jobtape.

Python's own allocator for small objects returns whole megabytes only, and hardly one of them ever is free. With
``PYTHONMALLOC=malloc``, as ``jobtape up`` and the Compose file start an API, the C library manages those too.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Final

MANY: Final = 100
"""Number of ended streams from which a trim is worthwhile."""
PAUSE: Final = 5.0
"""Seconds from then until the trim, and so the least seconds between two."""


class MemoryTrimmer:
    """To be used in a running loop."""

    def __init__(self, *, many: int = MANY, pause: float = PAUSE) -> None:
        self._many = many
        self._pause = pause
        self._ended = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def stream_ended(self) -> None:
        """Count one more stream that has ended."""
        self._ended += 1
        if self._ended >= self._many and not self.due and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._collect_and_trim)

    @property
    def due(self) -> bool:
        """Whether a trim is scheduled."""
        return self._timer is not None

    def close(self) -> None:
        """Cancel a scheduled trim, and schedule no more."""
        self._closed = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _collect_and_trim(self) -> None:
        self._timer = None
        self._ended = 0
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
