"""Answers the most frequent requests without FastAPI's router and dependencies, which cost more than the answer itself.

These are requests without a query for ``POST /jobs``, ``POST /jobs/batch`` and ``GET /jobs/{id}``. The same functions
answer them as behind FastAPI's routes, which all other requests go to, and which the OpenAPI document is made of.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jobtape.producer.http import error_handlers
from jobtape.producer.http.access import RULES, authorize
from jobtape.producer.http.dependencies import running_producer
from jobtape.producer.http.query_parameters import JobParameters
from jobtape.producer.http.routes.jobs import jobs, submit
from jobtape.producer.producer import Producer
from jobtape.schemas import ids
from jobtape.telemetry.work import ROUTE

Endpoint = Callable[[Request, Producer], Awaitable[Response]]

_JOBS: Final = "/jobs/"
POST: Final[dict[str, Endpoint]] = {"/jobs": submit.submit, "/jobs/batch": submit.submit_batch}
_NO_PARAMETERS: Final = JobParameters()


class DirectRoutes:
    """Middleware next to the router."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _endpoint(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        name, endpoint, job_id = found
        scope[ROUTE] = name.partition(" ")[2]
        request = Request(scope, receive, send)
        try:
            await authorize(request, RULES[name], job_id)
            response = await endpoint(request, running_producer(request))
        except Exception as error:
            if (handler := error_handlers.handler_of(error)) is None:
                raise
            response = await handler(request, error)
        await response(scope, receive, send)


def _endpoint(scope: Scope) -> tuple[str, Endpoint, str | None] | None:
    """Return the route, what answers the request, and the job id of the path; None when it is FastAPI's."""
    if scope["type"] != "http" or scope.get("query_string"):
        return None
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if scope["method"] == "POST":
        return None if (posted := POST.get(path)) is None else (f"POST {path}", posted, None)
    if scope["method"] != "GET" or not path.startswith(_JOBS):
        return None
    job_id = ids.parse_job_id(path[len(_JOBS) :])
    if job_id is None:
        return None
    return "GET /jobs/{job_id}", partial(jobs.get_job, job_id, _NO_PARAMETERS), job_id
