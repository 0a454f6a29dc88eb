"""Puts the REST API together."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, Final

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from jobtape.producer.http import error_handlers as answers
from jobtape.producer.http import openapi
from jobtape.producer.http.asyncapi import document as asyncapi
from jobtape.producer.http.auth import FindProducer, require_key
from jobtape.producer.http.problems import ProblemDetails
from jobtape.producer.http.query_parameters import once
from jobtape.producer.http.representation import BatchOut, EventPage, JobOut, JobPage
from jobtape.producer.http.routes import (
    cancel as routes_cancel,
)
from jobtape.producer.http.routes import (
    dead_letters as routes_dead,
)
from jobtape.producer.http.routes import (
    jobs as routes_jobs,
)
from jobtape.producer.http.routes import (
    live as routes_live,
)
from jobtape.producer.http.routes import (
    operations as routes_ops,
)
from jobtape.producer.http.routes import (
    redrive as routes_redrive,
)
from jobtape.producer.http.routes import (
    replays as routes_replays,
)
from jobtape.producer.http.routes import (
    submit as routes_submit,
)
from jobtape.producer.http.routes.jobs import AS_OF
from jobtape.producer.http.stream_parameters import LAST_EVENT_ID
from jobtape.producer.http.websocket import route as routes_ws
from jobtape.producer.live.prefer import APPLIED
from jobtape.producer.live.prefer import HEADER as PREFER
from jobtape.producer.service.idempotency import HEADER as KEY
from jobtape.schemas.replay_order import ReplayOrder
from jobtape.schemas.submission import BatchSubmission, Submission

MODELS: tuple[type[BaseModel], ...] = (
    Submission,
    BatchSubmission,
    BatchOut,
    JobOut,
    JobPage,
    EventPage,
    routes_redrive.RedriveQuery,
    routes_redrive.RedrivesOut,
    ReplayOrder,
    routes_dead.DeadPage,
    routes_dead.DeadMessageOut,
    routes_ops.JobTypesOut,
    routes_ops.ReadinessOut,
    ProblemDetails,
)

ALLOWED_HEADERS: Final = (
    *("Authorization", "Cache-Control", "Content-Type", "If-Match", "If-None-Match", KEY, LAST_EVENT_ID, PREFER),
    # What tracing in the browser adds to every request (W3C Trace Context and Baggage).
    *("traceparent", "tracestate", "baggage"),
)
"""What pages of other hosts may send besides what browsers always let them."""
EXPOSED_HEADERS: Final = (
    *("Allow", "Content-Length", "ETag", "Location", "Retry-After", "WWW-Authenticate", APPLIED, AS_OF),
    *("Accept-Encoding", "Date", KEY, "Link", "traceparent", "tracestate"),
)
"""What they may read of an answer: all that says something, also what a proxy may add."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_api(
    find_producer: FindProducer, *, api_key: str | None, origins: Collection[str], lifespan: Lifespan
) -> FastAPI:
    """The application. ``find_producer`` gives the running producer or raises Problem; nothing is started here.

    ``origins``: of other hosts' pages that may use it from a browser.
    """
    app = FastAPI(
        title="Jobtape",
        version=version("jobtape"),
        description="Jobs on a durable tape of events in RabbitMQ.",
        lifespan=lifespan,
        redoc_url=None,
        # A redirect of POST /jobs/ would let clients drop the body and go on with a GET.
        redirect_slashes=False,
    )
    app.state.find_producer = find_producer
    app.state.api_key = api_key
    app.state.origins = frozenset(origins)
    keyed: list[Any] = [Depends(once)] if api_key is None else [Depends(require_key), Depends(once)]
    app.include_router(routes_submit.router, dependencies=keyed)
    app.include_router(routes_jobs.router, dependencies=keyed)
    app.include_router(routes_live.router, dependencies=keyed)
    app.include_router(routes_cancel.router, dependencies=keyed)
    app.include_router(routes_redrive.router, dependencies=keyed)
    app.include_router(routes_replays.router, dependencies=keyed)
    app.include_router(routes_dead.router, dependencies=keyed)
    app.include_router(routes_ops.router, dependencies=keyed)
    app.include_router(routes_ops.open_router)
    app.include_router(asyncapi.router)
    app.include_router(routes_ws.router)
    answers.install(app)
    openapi.install(app, MODELS)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["GET", "HEAD", "OPTIONS", "POST"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    return app
