"""Puts the REST face together."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, Final

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from jobtape.producer import (
    answers,
    asyncapi,
    openapi,
    routes_cancel,
    routes_dead,
    routes_jobs,
    routes_live,
    routes_ops,
    routes_redrive,
    routes_replays,
    routes_submit,
    routes_ws,
)
from jobtape.producer.access import FindProducer, require_key
from jobtape.producer.idempotency_key import HEADER as KEY
from jobtape.producer.live_queries import LAST_EVENT_ID
from jobtape.producer.prefer import APPLIED
from jobtape.producer.prefer import HEADER as PREFER
from jobtape.producer.problems import ProblemDetails
from jobtape.producer.queries import once
from jobtape.producer.representation import BatchOut, EventPage, JobOut, JobPage
from jobtape.producer.routes_jobs import AS_OF
from jobtape.producer.submission import BatchSubmission, Submission
from jobtape.schemas.replaying import ReplayOrder

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
