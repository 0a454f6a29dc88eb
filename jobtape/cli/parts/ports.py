"""Opens TCP ports, with error messages that say what to do."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from jobtape.cli.errors import CannotStart

_WHY: Final = {
    errno.EADDRINUSE: "it is taken: stop the program there (`ss -ltnp` shows it), or choose another port with {how}",
    errno.EACCES: "the system does not allow it: choose a port above 1023 with {how}",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another with JOBTAPE_HOST",
}


@contextmanager
def listener_on(host: str, port: int, how: str) -> Iterator[socket.socket]:
    """Open a listening socket for the block. ``how``: the option that sets the port, for error messages.

    Raises CannotStart when the port is taken, or the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CannotStart(f"cannot listen on {host}: {error.strerror}; see JOBTAPE_HOST") from None
    with socket.socket(family, kind, protocol) as listener:
        # As asyncio does: closing connections of an earlier process must not block the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            why = _WHY.get(error.errno or 0, f"{error.strerror}; see JOBTAPE_HOST and {{how}}")
            raise CannotStart(f"cannot listen on {host}:{port}: {why.format(how=how)}") from None
        yield listener


def check_port(host: str, port: int, how: str) -> None:
    """Raise CannotStart when ``listener_on`` could not open the port."""
    with listener_on(host, port, how):
        return
