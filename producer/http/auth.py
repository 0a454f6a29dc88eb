"""What a route needs of the application it runs in: the running producer, and the key that requests must carry.

Dependencies are coroutines throughout: FastAPI runs others in threads, one for each of a request.
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
    """The producer that answers this request. Raises the problem 503 when none is running."""
    find: FindProducer = request.app.state.find_producer
    return find()


async def require_key(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Raises the problem 401 unless the request carries the API key. For the routes of an API that has one; ``_bearer``
    is what the OpenAPI document says of it.
    """
    sent = bearer_token(request)
    if not is_key(sent, request.app.state.api_key):
        raise Problem(
            "unauthorized",
            "send the API key, once, as Authorization: Bearer …" if sent is None else "this is not the API key",
            headers={"WWW-Authenticate": 'Bearer realm="jobtape"'},
        )


def bearer_token(connection: HTTPConnection) -> bytes | None:
    """The bytes of the key in the header ``Authorization``; None without one, and where there are several headers,
    since proxies differ in which of them counts.
    """
    given = connection.headers.getlist("authorization")
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not (key := credentials.strip(" \t")):
        return None
    # Headers come as Latin-1 text: encoded so they are the bytes that were sent. None of those is taken for a space.
    return key.encode("latin-1", "replace")


def is_key(sent: bytes | None, key: str) -> bool:
    """Return whether what was sent is the key, in a time that does not depend on how much of it is right."""
    return sent is not None and compare_digest(sent, key.encode())


def scope_of(request: Request) -> str:
    """Whose idempotency keys those of this request are: the API key's, which is not itself written anywhere."""
    key: str | None = request.app.state.api_key
    return "api" if key is None else f"api:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


RunningProducer = Annotated[Producer, Depends(running_producer)]
