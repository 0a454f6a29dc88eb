"""Builds the FastAPI application of the REST API."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from jobtape.producer.http import error_handlers, openapi
from jobtape.producer.http.access import RULES, first_caller, identify, require_key
from jobtape.producer.http.asyncapi import document as asyncapi
from jobtape.producer.http.dependencies import FindProducer, no_repeated_parameters
from jobtape.producer.http.direct_routes import DirectRoutes
from jobtape.producer.http.middleware import HeadAsGet, HideTracebacks, TraceContext
from jobtape.producer.http.problems import ProblemDetails
from jobtape.producer.http.routes.events import events, replays, subscriptions, webhooks
from jobtape.producer.http.routes.jobs import bulk, flows, jobs, results, signals, submit
from jobtape.producer.http.routes.operations import dashboard as dashboard_routes
from jobtape.producer.http.routes.operations import dead_letters, health, keys, scaling, statistics, workers
from jobtape.producer.http.routes.rules import rules, schedules
from jobtape.producer.http.stream_parameters import LAST_EVENT_ID
from jobtape.producer.http.websocket import route as websocket
from jobtape.producer.live import outcome_wait
from jobtape.producer.service.submission import idempotency
from jobtape.schemas.flows.submission import FlowSubmission
from jobtape.schemas.messages.replay_request import ReplayRequest
from jobtape.schemas.submission import BatchSubmission, Submission
from jobtape.webhooks.addresses import Network

UNDERIVED_MODELS: Final = (
    Submission,
    BatchSubmission,
    bulk.RedriveBody,
    bulk.CancelBody,
    flows.ForkBody,
    FlowSubmission,
    signals.SignalIn,
    ReplayRequest,
    rules.LimitBody,
    schedules.BackfillBody,
    schedules.ScheduleBody,
    schedules.SyncBody,
    keys.KeyBody,
    keys.KeyRotateBody,
    webhooks.RotateBody,
    webhooks.WebhookBody,
    webhooks.WebhookChange,
    webhooks.WebhookReplayBody,
    ProblemDetails,
)
"""The models that FastAPI does not find in the signatures of the routes."""
ALLOWED_HEADERS: Final = (
    *("Authorization", "Cache-Control", "Content-Type", "If-Match", "If-None-Match"),
    *(idempotency.HEADER, LAST_EVENT_ID, outcome_wait.HEADER),
    # Tracing in a browser adds these to every request (W3C Trace Context and Baggage).
    *("traceparent", "tracestate", "baggage"),
)
"""Request headers that web pages of other hosts may send, besides those that browsers always allow."""
EXPOSED_HEADERS: Final = (
    *(
        "Allow",
        "Content-Length",
        "ETag",
        "Location",
        "Retry-After",
        "WWW-Authenticate",
        outcome_wait.APPLIED,
        jobs.AS_OF,
    ),
    *("Accept-Encoding", "Date", idempotency.HEADER, "Link", "traceparent", "tracestate"),
)
"""Response headers that such pages may read, also those that a proxy may add."""

MODULES: Final = (
    *(submit, jobs, signals, events, flows, results, bulk, replays),
    *(rules, schedules, dead_letters, workers, subscriptions, webhooks, keys, statistics, scaling, health),
)
"""The routes that need a key, if the API requires one."""
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_api(
    find_producer: FindProducer,
    *,
    api_key: str | None,
    origins: Collection[str],
    dashboard: bool,
    lifespan: Lifespan,
    webhook_allow: tuple[Network, ...] = (),
) -> FastAPI:
    """Return the application. ``find_producer`` returns the running producer or raises Problem. Nothing is started.

    ``origins`` are those of web pages on other hosts that may use the API. ``dashboard``: whether to serve it at
    ``/``. ``webhook_allow``: see ``WebhookService``.
    """
    app = FastAPI(
        title="Jobtape",
        version=version("jobtape"),
        description="Jobs on a durable tape of events in RabbitMQ.",
        lifespan=lifespan,
        redoc_url=None,
        # After a redirect of POST /jobs/ a client could drop the body and send a GET.
        redirect_slashes=False,
        exception_handlers=error_handlers.HANDLERS,
        # ``TraceContext`` makes the spans of requests. FastAPI's logs would have the texts of errors, and metrics are
        # those of the table.
        telemetry={"tracing": False, "operation_spans": False, "metrics": False, "logs": False},
    )
    app.state.find_producer = find_producer
    app.state.api_key = api_key
    app.state.first_caller = first_caller(api_key)
    app.state.webhook_allow = webhook_allow
    app.state.origins = frozenset(origins)
    known = identify if api_key is None else require_key
    checks = [Depends(known), Depends(no_repeated_parameters)]
    for module in MODULES:
        _check_rules(module.router)
        app.include_router(module.router, dependencies=checks, responses=openapi.problems(403, 429))
    for open_router in (health.open_router, asyncapi.router, websocket.router):
        app.include_router(open_router)
    if dashboard:
        app.include_router(dashboard_routes.build_router())
    openapi.install(app, UNDERIVED_MODELS)
    app.add_middleware(DirectRoutes)
    app.add_middleware(TraceContext)
    app.add_middleware(HideTracebacks)
    app.add_middleware(HeadAsGet)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    return app


def _check_rules(router: APIRouter) -> None:
    """Raise LookupError for a route without a rule of who may use it."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                if f"{method} {route.path}" not in RULES:
                    raise LookupError(f"{method} {route.path} has no rule in producer/http/access.py: add one")
