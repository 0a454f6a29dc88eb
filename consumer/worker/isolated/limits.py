"""What the process of an isolated handler does to itself: end with its worker, and allow itself no more memory."""

import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# <linux/prctl.h>
_SET_DEATH_SIGNAL: Final = 1
_SET_CHILD_SUBREAPER: Final = 36


def belong_to(worker: int) -> None:
    """From now on this process is killed when its worker, process id ``worker``, ends, however that ends; and it stays
    the ancestor of whatever a handler starts, daemons too, so that all of it can be found and killed.

    Linux only. Elsewhere the end of the wire shows it, which a handler that never gives up the GIL does not see.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != worker:  # it ended before we said so
        os._exit(0)


@contextmanager
def memory_limit(more: int | None) -> Iterator[None]:
    """Inside, this process may have at most ``more`` bytes of address space beyond what it has on entering (None: no
    limit). Beyond it an allocation fails: a MemoryError in Python, whatever else in a library.
    """
    if more is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux: what it needed at most so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")
