"""uvicorn's server where signals are somebody else's to handle."""

import contextlib
from collections.abc import Iterator

import uvicorn


class EmbeddedServer(uvicorn.Server):
    """Ends when its ``should_exit`` is set, and by no signal.

    uvicorn's own handling would end the process as if the signal had killed it, after everything was closed in order.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
