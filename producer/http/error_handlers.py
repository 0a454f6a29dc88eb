"""Handlers that turn each error of the application into a problem."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from jobtape.producer.http.problems import Problem, problem_of
from jobtape.schemas.errors import JobtapeError

log = logging.getLogger(__name__)


async def _problem(_: Request, error: Problem) -> Response:
    return error.response()


async def _jobtape_error(_: Request, error: JobtapeError) -> Response:
    problem = problem_of(error)
    if problem.status >= 500:
        log.debug("responded %d %s: %r", problem.status, problem.kind, problem.detail)
    return problem.response()


async def _query_error(_: Request, error: RequestValidationError) -> Response:
    faults = [(".".join(str(part) for part in fault["loc"][1:]), str(fault["msg"])) for fault in error.errors()]
    return Problem("invalid-query", f"{': '.join(faults[0])}. See /openapi.json", errors=faults).response()


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Return the response to an error of the router."""
    path = request.url.path
    if error.status_code in (404, 405) and (methods := allowed_methods(request.app, request.scope)):
        allow = {"Allow": ", ".join(methods)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        detail = f"{path} does not support {request.method}, only {allow['Allow']}; see /openapi.json"
        return Problem("method-not-allowed", detail, headers=allow).response()
    if error.status_code == 404:
        return Problem("not-found", f"there is nothing at {path}{_hint(request)}; see /openapi.json").response()
    if error.status_code == 413:  # an application in which this one is mounted can have a limit of its own
        return Problem("too-large", "the body is larger than this application accepts").response()
    log.error("unexpected HTTP error %d: %r", error.status_code, error.detail)
    return Problem("internal", "the reason is in the log of the API").response()


Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

HANDLERS: Final[dict[int | type[Exception], Handler]] = {
    Problem: _problem,
    JobtapeError: _jobtape_error,
    RequestValidationError: _query_error,
    HTTPException: _http_error,
}


def handler_of(error: Exception) -> Handler | None:
    """Return the handler of ``error``, or None when nobody expects it."""
    return next((HANDLERS[cls] for cls in type(error).__mro__ if cls in HANDLERS), None)


def _hint(request: Request) -> str:
    shorter = request.scope["path"].rstrip("/")
    found = shorter != request.scope["path"] and allowed_methods(request.app, {**request.scope, "path": shorter})
    return ": leave out the slash at its end" if found else ""


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods of the path in ``scope``, sorted; none when there is no such path.

    All routes are matched, because Starlette's own ``Allow`` names the methods of one route only, and a path can have
    several. HEAD is supported wherever GET is, OPTIONS everywhere. ``*`` is the whole server (RFC 9110, section 9.3.7).
    """
    if scope["path"].removeprefix(scope.get("root_path", "")) in ("*", "/*"):
        return ["GET", "HEAD", "OPTIONS", "POST"]
    found = {
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        for route in app.routes
        if route.matches({**scope, "method": method})[0] is Match.FULL
    }
    if "GET" in found:
        found.add("HEAD")
    return sorted(found | {"OPTIONS"}) if found else []
