"""Opens ports, with errors that say what to do, and serves health checks with uvicorn."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from hmac import compare_digest
from typing import Final

import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobtape.cli.errors import CannotStart
from jobtape.telemetry import instruments

log = logging.getLogger(__name__)

_WHY: Final = {
    errno.EADDRINUSE: "it is taken: stop the program there (`ss -ltnp` shows it), or choose another port with {how}",
    errno.EACCES: "the system does not allow it: choose a port above 1023 with {how}",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another with JOBTAPE_HOST",
}


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server that stops when ``should_exit`` is set, and ignores signals.

    uvicorn's own handling closes everything in order, but then lets the signal kill the process.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
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


@contextlib.asynccontextmanager
async def health(
    host: str, port: int, part: str, fault: Callable[[], str | None], key: str | None = None
) -> AsyncIterator[None]:
    """Serve health checks of a worker or projector inside the block.

    ``GET /health/live`` answers 200. ``GET /health/ready`` answers 200, or 503 with the reason from ``fault``.
    ``GET /metrics`` has the metrics of this process, and needs ``key`` if there is one. Raises CannotStart when the
    port is taken.
    """
    with listener_on(host, port, "JOBTAPE_HEALTH_PORT") as listener:
        config = uvicorn.Config(
            _health_application(part, fault, key),
            http="h11",  # limits the size of the headers
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = EmbeddedServer(config)
        serving = asyncio.create_task(server.serve([listener]), name="health")
        log.info("health on http://%s:%d/health/ready", host, listener.getsockname()[1])
        try:
            yield
        finally:
            server.should_exit = True
            await serving


def _health_application(part: str, fault: Callable[[], str | None], key: str | None) -> Starlette:
    async def live(_: Request) -> JSONResponse:
        return JSONResponse({"status": "live", "part": part})

    async def ready(_: Request) -> JSONResponse:
        why = fault()
        status = ("ready", 200) if why is None else ("not ready", 503)
        return JSONResponse({"status": status[0], "part": part, "reason": why}, status[1])

    async def metrics(request: Request) -> Response:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not compare_digest(sent.encode(), key.encode()):
            return JSONResponse({"detail": "send JOBTAPE_API_KEY as bearer token"}, 401)
        return Response(instruments.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    routes = [Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", metrics)]
    return Starlette(routes=routes)
