"""uvicorn's server without its own signal handling."""

import contextlib
from collections.abc import Iterator

import uvicorn


class EmbeddedServer(uvicorn.Server):
    """A server that stops when ``should_exit`` is set, and ignores signals.

    uvicorn's own handling closes everything in order, but then lets the signal kill the process.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
