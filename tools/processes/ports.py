"""Free TCP ports on the loopback interface. Standard library only."""

import random
import socket
from collections.abc import Collection

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
    """Return ``preferred`` if it is free, or a random free port outside of ``avoid``. Raises OSError if none is."""
    candidates = random.sample(RANGE, 200)
    for port in candidates if preferred is None else [preferred, *candidates]:
        if port not in avoid and is_free(port):
            return port
    raise OSError("no free TCP port on 127.0.0.1 between 20000 and 32000: close some servers")
