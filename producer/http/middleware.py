"""ASGI middleware: HEAD requests, traces, and errors that no handler expects."""

import logging
import traceback
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobtape.producer.http.problems import Problem
from jobtape.producer.live.event_stream import HEAD
from jobtape.telemetry import tracing

if TYPE_CHECKING:
    from jobtape.telemetry.request_span import RequestSpan
    from jobtape.telemetry.spans import Below

log = logging.getLogger(__name__)

_FASTAPI: Final = "fastapi.telemetry"
"""In the ASGI scope below an application whose telemetry is on; None if it excludes the request."""


class HeadAsGet:
    """Answers HEAD as GET without the body: with the same status and headers, and without a route for each path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # A copy, because the server's own scope must still say HEAD: so the server knows that there is no body.
        await self._app({**scope, "method": "GET", HEAD: True}, receive, without_body)


class TraceContext:
    """Makes the span of a request if it is sampled. Otherwise it makes the ``traceparent`` of the request the trace
    context of what is submitted.

    Nothing is done below an application that has made a span, or that FastAPI's telemetry excludes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or tracing.traceparent() is not None:
            await self._app(scope, receive, send)
            return
        if _FASTAPI in scope or _has_no_span(scope):
            found: RequestSpan | Below | tracing.Within | None = tracing.passed_on(scope)
        else:
            found = tracing.request(scope, "HEAD" if scope.get(HEAD) else scope.get("method", ""))
        if found is None:
            await self._app(scope, receive, send)
        else:
            with found:
                await self._app(scope, receive, found.noting_status(send))


def _has_no_span(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == "/metrics" or path.startswith("/health/")


class HideTracebacks:
    """Logs an error that nobody expected and answers 500. Its text is logged in one line, so that a client cannot forge
    lines of the log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:  # noqa: BLE001  # any error gets a response and an entry in the log
            log.error("%s %r failed: %s", scope["method"], scope["path"], described(error))
            if not started:
                problem = Problem("internal", "the reason is in the log of the API")
                await problem.response()(scope, receive, send)


def described(error: Exception) -> str:
    """Return the type, the text (escaped, on one line) and the frames of ``error``."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__qualname__}: {str(error)!r}\n{frames}".rstrip()
