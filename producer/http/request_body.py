"""Reads the JSON body of a request: checks its type and its size while it streams in, and parses it."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from jobtape.producer.http.problems import Problem
from jobtape.schemas import plainjson

T = TypeVar("T")

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
SMALL_BODY: Final = 64 * 1024
"""Bytes of a body that contains a filter and no payloads."""
ARRIVAL_TIMEOUT: Final = 60.0
"""Seconds that a body may take to arrive; uvicorn has no such limit."""
LARGE: Final = 32 * 1024
"""Bytes from which a body is checked in a thread, so that other requests need not wait."""


def media_type(request: Request, *allowed: str) -> str:
    """Return which of the media types ``allowed`` the body has. Raises the problem 415."""
    types = request.headers.getlist("content-type")
    codings = request.headers.getlist("content-encoding")
    if len(types) == 1 and types[0] in allowed and not codings:
        return types[0]
    # A proxy may join several headers to a list, which is not a media type.
    given, _, parameters = ", ".join(types).partition(";")
    kind = given.strip().lower()
    wanted = " or ".join(allowed)
    if kind not in allowed:
        raise _unsupported(f"the type of the body is {kind or 'missing'}: send Content-Type: {wanted}")
    for parameter in filter(None, (part.strip().lower() for part in parameters.split(";"))):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise _unsupported("JSON is UTF-8 (RFC 8259): send it in UTF-8, without another charset")
    if any(coding.strip() not in ("", "identity") for coding in ",".join(codings).lower().split(",")):
        raise _unsupported("the body is compressed: send it without Content-Encoding", {"Accept-Encoding": "identity"})
    return kind


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, of at most ``limit`` bytes. Raises the problem 413 as soon as there are more, 408 after
    ``ARRIVAL_TIMEOUT`` seconds.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(ARRIVAL_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        detail = f"the body did not arrive within {ARRIVAL_TIMEOUT:g} s; nothing was submitted"
        raise Problem("body-too-slow", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem("not-json", "the connection ended before the body; nothing was submitted") from None
    return bytes(body)


def parse_json(text: bytes, what: str = "the body") -> Any:
    """Return the value in ``text``. Raises the problem 400, which calls the text ``what``."""
    try:
        return plainjson.loads_sent(text)
    except plainjson.NotJson as error:
        raise Problem("not-json", f"{what} is not JSON: {error}") from None


async def call(size: int, function: Callable[[], T]) -> T:
    """Return ``function()``, called in a thread when its input of ``size`` bytes is large."""
    return function() if size < LARGE else await asyncio.to_thread(function)


async def small_json(request: Request) -> Any:
    """Return the value of a JSON body of at most ``SMALL_BODY`` bytes."""
    media_type(request, JSON)
    return parse_json(await read_body(request, SMALL_BODY))


SmallJson = Annotated[Any, Depends(small_json)]


def _too_large(limit: int) -> Problem:
    # The rest of the body is not read, so the connection cannot be used again.
    return Problem(
        "too-large", f"the body may have {limit} bytes; nothing was submitted", headers={"Connection": "close"}
    )


def _unsupported(detail: str, headers: dict[str, str] | None = None) -> Problem:
    return Problem("unsupported-media-type", detail, headers=headers)
