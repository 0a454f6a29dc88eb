"""What a route needs of the application it runs in: the running producer, and the key that requests must carry.

Dependencies are coroutines throughout: FastAPI runs others in threads, one for each of a request.
"""

import hashlib
from collections.abc import Callable
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from jobtape.producer.problems import Problem
from jobtape.producer.service import Producer

FindProducer = Callable[[], Producer]

_bearer = HTTPBearer(auto_error=False, description="JOBTAPE_API_KEY, when the API runs with one.")


async def running_producer(request: Request) -> Producer:
    """The producer that answers this request. Raises the problem 503 when none is running."""
    find: FindProducer = request.app.state.find_producer
    return find()


async def require_key(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Raises the problem 401 unless the request carries the API key, or none is needed."""
    key: str | None = request.app.state.api_key
    if key is None:
        return
    # Headers come as Latin-1 text: encoded so they are the bytes that were sent.
    if not is_key(None if given is None else given.credentials.encode("latin-1", "replace"), key):
        raise Problem(
            "unauthorized",
            "send the API key as Authorization: Bearer …" if given is None else "this is not the API key",
            headers={"WWW-Authenticate": 'Bearer realm="jobtape"'},
        )


def is_key(sent: bytes | None, key: str) -> bool:
    """Whether what was sent is the key; the time that takes does not tell how much of it was right."""
    return compare_digest(sent or b"", key.encode())


def scope_of(request: Request) -> str:
    """Whose idempotency keys those of this request are: the API key's, which is not itself written anywhere."""
    key: str | None = request.app.state.api_key
    return "api" if key is None else f"api:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


RunningProducer = Annotated[Producer, Depends(running_producer)]
