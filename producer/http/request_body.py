"""Reads a request's JSON body: its type, its size while it streams in, and whether it is JSON."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from jobtape.producer.http.problems import Problem

T = TypeVar("T")

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
ARRIVAL_LIMIT: Final = 60.0
"""Seconds that a body may take to arrive; uvicorn has no such limit."""
LARGE: Final = 32 * 1024
"""Bytes from which on checking a body is left to a thread, so that others are not kept waiting."""


def media_type(request: Request, *allowed: str) -> str:
    """Which of ``allowed`` the body is of. Raises the problem 415."""
    # Several headers are a list to whoever is in between, and a list is no media type.
    given, _, parameters = ", ".join(request.headers.getlist("content-type")).partition(";")
    kind = given.strip().lower()
    wanted = " or ".join(allowed)
    if kind not in allowed:
        raise _unsupported(f"the body is {kind or 'of no type'}: send Content-Type: {wanted}")
    for parameter in filter(None, (part.strip().lower() for part in parameters.split(";"))):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise _unsupported("JSON is UTF-8 (RFC 8259): send it so, without another charset")
    codings = ",".join(request.headers.getlist("content-encoding")).lower()
    if any(coding.strip() not in ("", "identity") for coding in codings.split(",")):
        raise _unsupported("the body is compressed: send it without Content-Encoding", {"Accept-Encoding": "identity"})
    return kind


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most ``limit`` bytes. Raises the problem 413 as soon as there are more, 408 when it stalls."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(ARRIVAL_LIMIT):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        detail = f"the body did not arrive within {ARRIVAL_LIMIT:g} s; nothing was submitted"
        raise Problem("body-too-slow", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem("not-json", "the client left in the middle of the body; nothing was submitted") from None
    return b"".join(chunks)


async def unhurried(size: int, function: Callable[..., T], *args: object) -> T:
    """What ``function`` makes of something of ``size`` bytes: here when it is small, otherwise in a thread."""
    return function(*args) if size < LARGE else await asyncio.to_thread(function, *args)


def _too_large(limit: int) -> Problem:
    # What is still to come is not read, so the connection is of no use any more.
    return Problem(
        "too-large", f"the body may have {limit} bytes; nothing was submitted", headers={"Connection": "close"}
    )


def _unsupported(detail: str, headers: dict[str, str] | None = None) -> Problem:
    return Problem("unsupported-media-type", detail, headers=headers)
