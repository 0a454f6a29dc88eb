"""Free TCP ports on the loopback interface. Standard library only.

Between the choice of a port and its use nobody listens there. So a chosen port is reserved as long as this process
runs: by a lock on the byte of that number in a file that all processes of the user share.
"""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import IO

# Below the ports of outgoing connections (32768 and up on Linux), so that none of those takes a port before its use.
RANGE = range(20_000, 32_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen on ``host``:``port`` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection in TIME_WAIT must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None, avoid: Collection[int] = ()) -> int:
    """Return ``preferred`` if it is free, or a random free port outside of ``avoid`` that nobody has reserved.

    Raises OSError if there is none.
    """
    if preferred is not None and preferred not in avoid and is_free(preferred):
        return preferred
    for port in random.sample(RANGE, min(200, len(RANGE))):
        if port not in avoid and is_free(port) and _reserve(port):
            return port
    raise OSError("no free TCP port on 127.0.0.1 between 20000 and 32000: close some servers")


_reserved: set[int] = set()


def _reserve(port: int) -> bool:
    if port in _reserved:  # a lock does not keep out its own process
        return False
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _reserved.add(port)
    return True


@cache
def _reservations() -> IO[bytes]:
    """Open the file of the locks. It stays open: closing it would release them."""
    path = Path(tempfile.gettempdir()) / f"jobtape-ports-{os.getuid()}"
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
