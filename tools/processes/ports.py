"""Free TCP ports on the loopback interface. Standard library only."""

import random
import socket

# Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that nothing moves in
# between the look and the use.
RANGE = range(20_000, 32_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `host`:`port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection of an earlier run that lingers in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None, avoid: set[int] | None = None) -> int:
    """`preferred` if it is free, otherwise a random free one that is not in `avoid`; raises OSError when none is."""
    taken = avoid or set()
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    for port in random.sample(RANGE, 200):
        if port not in taken and is_free(port):
            return port
    raise OSError("no free TCP port on 127.0.0.1 between 20000 and 32000: close some servers")
