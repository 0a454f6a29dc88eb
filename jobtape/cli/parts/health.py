"""Serves the health of a worker or projector over HTTP, on the event loop of the part."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobtape.cli.parts.ports import listener_on
from jobtape.cli.parts.uvicorn_server import EmbeddedServer

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def health(host: str, port: int, part: str, trouble: Callable[[], str | None]) -> AsyncIterator[None]:
    """Serve health checks inside the block.

    ``GET /health/live`` answers 200. ``GET /health/ready`` answers 200, or 503 with the reason from ``trouble``. Raises
    CannotStart when the port is taken.
    """
    with listener_on(host, port, "JOBTAPE_HEALTH_PORT") as listener:
        app = _application(part, trouble)
        config = uvicorn.Config(
            app,
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


def _application(part: str, trouble: Callable[[], str | None]) -> Starlette:
    async def live(_: Request) -> JSONResponse:
        return JSONResponse({"status": "live", "part": part})

    async def ready(_: Request) -> JSONResponse:
        why = trouble()
        if why is None:
            return JSONResponse({"status": "ready", "part": part, "trouble": None})
        return JSONResponse({"status": "not ready", "part": part, "trouble": why}, 503)

    return Starlette(routes=[Route("/health/live", live), Route("/health/ready", ready)])
