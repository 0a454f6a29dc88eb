"""Every error of the application becomes a problem; no traceback reaches a client."""

import logging
import traceback

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobtape.producer.http.methods import HeadAsGet, methods_of
from jobtape.producer.http.problems import Problem, problem_of
from jobtape.schemas.errors import JobtapeError

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Set the handlers."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(JobtapeError, _jobtape_error)
    app.add_exception_handler(RequestValidationError, _query_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(HideTracebacks)
    app.add_middleware(HeadAsGet)


def one_line(text: str) -> str:
    """A text from outside as it may stand in a log: CR, LF and other control characters escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _jobtape_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, JobtapeError)
    problem = problem_of(error)
    if problem.status >= 500:
        log.debug("answered %d %s: %s", problem.status, problem.kind, one_line(problem.detail))
    return problem.response()


async def _query_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [(".".join(str(part) for part in fault["loc"][1:]), str(fault["msg"])) for fault in error.errors()]
    first = ": ".join(faults[0]) if faults else "it does not fit"
    return Problem("invalid-query", f"{first}. See /openapi.json", errors=faults).response()


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself answers."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code in (404, 405) and (methods := methods_of(request.app, request.scope)):
        allow = {"Allow": ", ".join(methods)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        detail = f"{request.method} is not for {path}, which takes {allow['Allow']}; see /openapi.json"
        return Problem("method-not-allowed", detail, headers=allow).response()
    if error.status_code == 404:
        return Problem("not-found", f"there is nothing at {path}{_hint(request)}; see /openapi.json").response()
    if error.status_code == 413:  # an application that this one is mounted in has a limit of its own
        return Problem("too-large", "the body is larger than this application takes").response()
    log.error("an unexpected HTTP error %d: %s", error.status_code, one_line(str(error.detail)))
    return Problem("internal", "the reason is in the log of the API").response()


def _hint(request: Request) -> str:
    bare = request.scope["path"].rstrip("/")
    without = bare != request.scope["path"] and methods_of(request.app, request.scope, bare)
    return ": leave out the slash at its end" if without else ""


class HideTracebacks:
    """The last resort: an error that nobody expected is logged, its text on one line, and answered with a bare 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client gets a problem and the log the place
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s %s failed\n%s%s", scope["method"], one_line(scope["path"]), frames, one_line(repr(error)))
            if not begun:
                problem = Problem("internal", "the reason is in the log of the API; nothing else is known here")
                await problem.response()(scope, receive, send)
