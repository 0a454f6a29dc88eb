"""Dependencies of the routes: the running producer and the check of the API key.

All dependencies are coroutines, because FastAPI runs each other dependency in a thread.
"""

import hashlib
from collections.abc import Callable
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from jobtape.producer.http.problems import Problem
from jobtape.producer.producer import Producer

FindProducer = Callable[[], Producer]

_bearer = HTTPBearer(auto_error=False, description="JOBTAPE_API_KEY")


async def running_producer(request: Request) -> Producer:
    """Return the producer that serves this request. Raises the problem 503 when none is running."""
    find: FindProducer = request.app.state.find_producer
    return find()


async def require_key(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Raise the problem 401 unless the request carries the API key.

    Only for an API that has a key. The dependency ``_bearer`` adds the key to the OpenAPI document.
    """
    sent = bearer_token(request)
    if not is_key(sent, request.app.state.api_key):
        raise Problem(
            "unauthorized",
            "send the API key in exactly one header Authorization: Bearer …"
            if sent is None
            else "the API key is wrong: send the value of JOBTAPE_API_KEY",
            headers={"WWW-Authenticate": 'Bearer realm="jobtape"'},
        )


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


def is_key(sent: bytes | None, key: str) -> bool:
    """Return whether ``sent`` is the key. Compares in constant time, so that the duration reveals nothing."""
    return sent is not None and compare_digest(sent, key.encode())


def scope_of(request: Request) -> str:
    """Return the owner of this request's idempotency keys. It is a hash, because the API key must not be stored."""
    key: str | None = request.app.state.api_key
    return "api" if key is None else f"api:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def mount_path(request: Request) -> str:
    """Return the path under which a proxy or another application serves this one, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


RunningProducer = Annotated[Producer, Depends(running_producer)]
