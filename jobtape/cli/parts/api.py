"""``jobtape api``: runs the REST API in uvicorn, in one process or several."""

import asyncio
import logging
import math
import signal
import sys
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from jobtape.cli import log_output as logs
from jobtape.cli.parts.lifeline import Lifeline, end_with_parent
from jobtape.cli.parts.serving import EmbeddedServer, listener_on
from jobtape.cli.parts.signals import STOPPING, SignalHandler, end_at_once, log_stopping
from jobtape.cli.parts.start import configuring, fitting_job_types_of, refuse_exposure, settings_with
from jobtape.process import forks, garbage
from jobtape.producer.http.websocket.requests import MAX_MESSAGE
from jobtape.settings import Settings
from jobtape.telemetry import setup as telemetry


def run_api(**options: str | None) -> None:
    """Serve until SIGTERM or SIGINT, and return when the running requests are answered. Raises CannotStart."""
    lifeline = Lifeline()
    settings = settings_with(**options)
    logs.configure("api", settings.log_level, settings.log_format)
    refuse_exposure(settings)
    fitting_job_types_of(settings)
    if settings.api_workers == 1:
        _start_telemetry()
    # uvicorn opens the port later, and its error message does not say what to do.
    with listener_on(settings.host, settings.port, "--port / JOBTAPE_PORT"):
        lifeline.configured()
    configuration = _configuration(settings)
    if settings.api_workers > 1:
        uvicorn.run(**configuration)
        return
    server = EmbeddedServer(uvicorn.Config(**configuration))

    def stop(number: int) -> None:
        log_stopping(number)
        server.should_exit = True

    signals = SignalHandler(stop, end_at_once)
    for number in STOPPING:
        signal.signal(number, signals.handle)
    server.run()
    if not server.started:
        sys.exit(1)


def application() -> FastAPI:
    """Make the application of one server process from the environment. uvicorn calls this in each process."""
    end_with_parent()
    forks.on_fork(asyncio.get_running_loop(), partial(forks.detach_loop, sockets=True))
    from jobtape.app import create_app  # noqa: PLC0415

    settings = settings_with()
    if not logging.getLogger().handlers:
        logs.configure("api", settings.log_level, settings.log_format)
    _start_telemetry()
    app = create_app(settings, fitting_job_types_of(settings))
    garbage.collect_rarely()
    return app


def _start_telemetry() -> None:
    with configuring():
        telemetry.start("api")


def _configuration(settings: Settings) -> dict[str, Any]:
    # No limit_concurrency: it counts connections, and every subscriber to the live events holds one.
    return {
        "app": "jobtape.cli.parts.api:application",
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "http": "jobtape.cli.parts.http_protocol:BoundedHttpProtocol",
        "workers": settings.api_workers,
        "lifespan": "on",
        "log_config": None,
        "access_log": settings.access_log,
        "proxy_headers": settings.proxy_headers,
        "root_path": settings.root_path,
        "server_header": False,
        # Requests over a WebSocket are small.
        "ws_max_size": MAX_MESSAGE,
        # A client that reads slowly answers a ping late and would look dead. Keep-alives detect lost clients
        # instead: see BoundedHttpProtocol.
        "ws_ping_interval": None,
        "timeout_graceful_shutdown": math.ceil(settings.grace_period),
    }
