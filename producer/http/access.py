"""Which API key may use which route: its scope, and what a key may do there that is limited to job types.

A route of ``api.MODULES`` that is not in the table cannot be built.
"""

import hashlib
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial
from hmac import compare_digest
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from jobtape.producer.http.dependencies import running_producer
from jobtape.producer.http.problems import Problem
from jobtape.producer.service.errors import KeyRefused
from jobtape.producer.service.keys import PREFIX
from jobtape.schemas import ids
from jobtape.schemas.access import ANYBODY, Caller, Scope

BEARER: Final = "bearer."
"""What the subprotocol of a WebSocket begins with that is an API key."""

_bearer = HTTPBearer(auto_error=False, description="JOBTAPE_API_KEY, or a key of `POST /keys`")


class Limited(Enum):
    """What a key may do that is limited to job types."""

    NARROWED = auto()
    """The route acts on jobs of these types only, by ``Caller``."""
    ITS_JOB = auto()
    """Only with a job of these types; others do not exist for it."""
    ALLOWED = auto()
    """Anything: the route concerns no job type."""
    REFUSED = auto()
    """Nothing: the route concerns jobs of all types."""


class Rule(NamedTuple):
    """What a route needs."""

    scope: Scope
    limited: Limited


_READ, _SUBMIT, _MANAGE = Scope.READ, Scope.SUBMIT, Scope.MANAGE

RULES: Final[dict[str, Rule]] = {
    "POST /jobs": Rule(_SUBMIT, Limited.NARROWED),
    "GET /jobs": Rule(_READ, Limited.NARROWED),
    "POST /jobs/batch": Rule(_SUBMIT, Limited.NARROWED),
    "GET /jobs/{job_id}": Rule(_READ, Limited.ITS_JOB),
    "POST /jobs/{job_id}/cancel": Rule(_MANAGE, Limited.ITS_JOB),
    "POST /jobs/{job_id}/redrive": Rule(_MANAGE, Limited.ITS_JOB),
    "POST /jobs/{job_id}/release": Rule(_MANAGE, Limited.ITS_JOB),
    "POST /jobs/{job_id}/signals/{name}": Rule(_SUBMIT, Limited.ITS_JOB),
    "GET /jobs/{job_id}/events": Rule(_READ, Limited.ITS_JOB),
    "GET /jobs/{job_id}/nodes": Rule(_READ, Limited.ITS_JOB),
    "GET /jobs/{job_id}/results": Rule(_READ, Limited.ITS_JOB),
    "POST /jobs/{job_id}/fork": Rule(_SUBMIT, Limited.ITS_JOB),
    "POST /flows": Rule(_SUBMIT, Limited.NARROWED),
    "GET /events": Rule(_READ, Limited.NARROWED),
    # Cursors and times are in each event too, and say nothing about a job.
    "GET /events/positions": Rule(_READ, Limited.ALLOWED),
    "GET /events/histogram": Rule(_READ, Limited.NARROWED),
    "POST /redrives": Rule(_MANAGE, Limited.NARROWED),
    "POST /cancels": Rule(_MANAGE, Limited.NARROWED),
    "GET /redrives/{job_id}": Rule(_READ, Limited.ITS_JOB),
    "POST /replays": Rule(_MANAGE, Limited.NARROWED),
    "POST /queues/{queue}/pause": Rule(_MANAGE, Limited.REFUSED),
    "POST /queues/{queue}/resume": Rule(_MANAGE, Limited.REFUSED),
    "POST /job-types/{name}/pause": Rule(_MANAGE, Limited.NARROWED),
    "POST /job-types/{name}/resume": Rule(_MANAGE, Limited.NARROWED),
    # Job types can share a limit.
    "PUT /limits/{name}": Rule(_MANAGE, Limited.REFUSED),
    "DELETE /limits/{name}": Rule(_MANAGE, Limited.REFUSED),
    "GET /limits": Rule(_READ, Limited.REFUSED),
    "PUT /schedules/{name}": Rule(_MANAGE, Limited.NARROWED),
    "PUT /schedules": Rule(_MANAGE, Limited.REFUSED),
    "GET /schedules": Rule(_READ, Limited.NARROWED),
    "GET /schedules/{name}": Rule(_READ, Limited.NARROWED),
    "GET /schedules/{name}/ticks": Rule(_READ, Limited.NARROWED),
    "DELETE /schedules/{name}": Rule(_MANAGE, Limited.NARROWED),
    "POST /schedules/{name}/pause": Rule(_MANAGE, Limited.NARROWED),
    "POST /schedules/{name}/resume": Rule(_MANAGE, Limited.NARROWED),
    "POST /schedules/{name}/trigger": Rule(_MANAGE, Limited.NARROWED),
    "POST /schedules/{name}/backfill": Rule(_MANAGE, Limited.NARROWED),
    "GET /dead": Rule(_READ, Limited.REFUSED),
    "GET /dead/{number}": Rule(_READ, Limited.REFUSED),
    "GET /workers": Rule(_READ, Limited.NARROWED),
    "GET /subscriptions": Rule(_READ, Limited.REFUSED),
    "GET /webhooks": Rule(_READ, Limited.NARROWED),
    "POST /webhooks": Rule(_MANAGE, Limited.NARROWED),
    "POST /webhooks/reencrypt": Rule(_MANAGE, Limited.REFUSED),
    "GET /webhooks/{webhook_id}": Rule(_READ, Limited.NARROWED),
    "PATCH /webhooks/{webhook_id}": Rule(_MANAGE, Limited.NARROWED),
    "DELETE /webhooks/{webhook_id}": Rule(_MANAGE, Limited.NARROWED),
    "POST /webhooks/{webhook_id}/rotate": Rule(_MANAGE, Limited.NARROWED),
    "POST /webhooks/{webhook_id}/test": Rule(_MANAGE, Limited.NARROWED),
    "POST /webhooks/{webhook_id}/replay": Rule(_MANAGE, Limited.NARROWED),
    "GET /stats": Rule(_READ, Limited.NARROWED),
    "GET /failures": Rule(_READ, Limited.NARROWED),
    "GET /job-types": Rule(_READ, Limited.NARROWED),
    "GET /scaling": Rule(_READ, Limited.NARROWED),
    "GET /metrics": Rule(_READ, Limited.REFUSED),
    "GET /keys": Rule(_MANAGE, Limited.REFUSED),
    "POST /keys": Rule(_MANAGE, Limited.REFUSED),
    "POST /keys/{key_id}/rotate": Rule(_MANAGE, Limited.REFUSED),
    "DELETE /keys/{key_id}": Rule(_MANAGE, Limited.REFUSED),
}
"""By method and path. The WebSocket needs what ``GET /events`` needs."""


async def require_key(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Same as ``identify``, for an API that needs a key: ``_bearer`` adds it to the OpenAPI document."""
    await identify(request)


async def identify(request: Request) -> None:
    """Find out who sends a request, for ``caller_of``. Raises a problem unless it may use its route."""
    rule = RULES[f"{request.method} {request.scope['route'].path}"]
    await authorize(request, rule, request.path_params.get("job_id"))


async def authorize(connection: HTTPConnection, rule: Rule, job_id: str | None = None) -> None:
    """Find out who sends the request, for ``caller_of``. ``job_id``: of the path, unchecked.

    Raises KeyRefused, Forbidden, TooManyRequests, ViewUnavailable, and the problem 404 for a job that the caller does
    not see.
    """
    caller = await _caller(connection)
    connection.state.caller = caller
    caller.require(rule.scope)
    if not caller.types:
        return
    if rule.limited is Limited.REFUSED:
        caller.require_all_types()
    if rule.limited is Limited.ITS_JOB and job_id is not None and (known := ids.parse_job_id(job_id)) is not None:
        job = await running_producer(connection).job(known)
        if job is None or not caller.sees(job):
            raise Problem("job-not-found", f"there is no job {known}")


def caller_of(connection: HTTPConnection) -> Caller:
    """Return who sends a request that ``authorize`` has let through."""
    caller: Caller = connection.state.caller
    return caller


def until_refused(connection: HTTPConnection) -> Callable[[], Awaitable[None]] | None:
    """Return what waits until the key with which a stream was opened is refused; None for JOBTAPE_API_KEY."""
    sent: bytes | None = connection.state.sent_key
    return None if sent is None else partial(running_producer(connection).keys.until_refused, sent)


def idempotency_scope(connection: HTTPConnection) -> str:
    """Return the owner of this request's idempotency keys: the API key, whatever its text is after a rotation."""
    caller = caller_of(connection)
    return f"api:{caller.id}" if caller.id else "api"


def first_caller(key: str | None) -> Caller:
    """Return who sends requests with JOBTAPE_API_KEY, or without a key if there is none."""
    if key is None:
        return ANYBODY
    # The id is the owner of idempotency keys. It is a hash, because the key must not be stored.
    return Caller(hashlib.sha256(key.encode()).hexdigest()[:32], "JOBTAPE_API_KEY", frozenset(Scope))


async def _caller(connection: HTTPConnection) -> Caller:
    first: str | None = connection.app.state.api_key
    connection.state.sent_key = None
    if first is None:
        return ANYBODY
    sent = bearer_token(connection) or _key_of_websocket(connection)
    if sent is None:
        raise KeyRefused("send the API key in exactly one header Authorization: Bearer …")
    # In constant time, so that the duration reveals nothing.
    if compare_digest(sent, first.encode()):
        owner: Caller = connection.app.state.first_caller
        return owner
    if not sent.startswith(PREFIX.encode()):
        raise KeyRefused("the API key is wrong: send the value of JOBTAPE_API_KEY, or a key of `jobtape keys create`")
    connection.state.sent_key = sent
    return await running_producer(connection).keys.caller(sent)


def bearer_token(connection: HTTPConnection) -> bytes | None:
    """Return the bytes of the key in the header ``Authorization``, or None when there is none.

    Several such headers count as none, because proxies differ in which of them they use.
    """
    given = connection.headers.getlist("authorization")
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not (key := credentials.strip(" \t")):
        return None
    # Starlette decodes headers as Latin-1, so encoding them restores the bytes that were sent.
    return key.encode("latin-1", "replace")


def _key_of_websocket(connection: HTTPConnection) -> bytes | None:
    """Return the key among the subprotocols of a WebSocket, where pages send it because they cannot set headers."""
    if len(connection.headers.getlist("authorization")) > 1:
        return None
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith(BEARER):
            text = offered.removeprefix(BEARER)
            try:
                return urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except ValueError:
                return None
    return None
