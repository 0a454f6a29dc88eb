"""HTTP requests to the API, with retries. All HTTP of the client goes through this module.

A request that may be repeated is retried until it is answered or the time of ``RequestPolicy.patience`` is over. It is
retried when the API cannot answer at the moment (503, or 409 with Retry-After). By default it is also retried when no
connection can be made, or when the connection ends before the answer. Every error is an ApiError, except ClientClosed.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from jobtape.client.errors import ApiError, ClientClosed, NoAnswer, Unavailable, Unreachable, WrongAddress, WrongKey
from jobtape.client.http.answers import Answer, error_of, read_answer
from jobtape.client.http.pools import Pools
from jobtape.client.http.proxies import transport_to
from jobtape.environment import fault_of_key, fault_of_url, trimmed
from jobtape.schemas.urls import without_password

SHORTEST: Final = 0.1
LONGEST: Final = 5.0
GROWTH: Final = 1.7

DEFAULT_URL: Final = "http://127.0.0.1:8000"
IN_PYTHON: Final = "the client's url or JOBTAPE_URL"


def pauses(longest: float = LONGEST) -> Iterator[float]:
    """Yield the seconds to wait before each retry, without end: longer each time, up to ``longest``, and random."""
    pause = SHORTEST
    while True:
        # Clients that lost their connections together must not come back at the same moment.
        yield pause * random.uniform(0.6, 1.0)  # noqa: S311  # not used for secrets
        pause = min(pause * GROWTH, longest)


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """How long a request may take, and when it is retried.

    ``timeout``: seconds until a request counts as unanswered. ``patience``: seconds during which a request that may be
    repeated is retried. ``after_cuts``: whether to retry also when there was no connection, or it broke. ``hint``: how
    error messages name the setting that holds the API's URL.
    """

    timeout: float = 15.0
    patience: float = 30.0
    after_cuts: bool = True
    hint: str = IN_PYTHON


class ApiConnection:
    """The connections to one API. Connects when the first request is sent.

    ``url`` and ``api_key`` default to JOBTAPE_URL and JOBTAPE_API_KEY. Raises WrongAddress when ``url`` is not a valid
    URL or the proxy that the environment sets for it cannot be used, and WrongKey when ``api_key`` cannot be a key.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, policy: RequestPolicy | None = None) -> None:
        self.policy = policy or RequestPolicy()
        given = trimmed(url if url is not None else os.environ.get("JOBTAPE_URL") or DEFAULT_URL)
        self.url = given.rstrip("/")
        self._shown = self.url if "@" not in self.url else without_password(self.url)
        try:
            address = httpx.URL(self.url)
            valid = address.scheme in ("http", "https") and address.host and not re.search(r"\s", self.url)
            fault = fault_of_url(self.url) if valid else "it is not http://host:port"
        except (httpx.InvalidURL, ValueError) as error:
            fault = str(error)
        if fault is not None:
            raise WrongAddress(
                f"{self._shown} is not an API's address ({fault}): set {self.policy.hint} to http://host:port"
            )
        key = trimmed(api_key if api_key is not None else os.environ.get("JOBTAPE_API_KEY", ""))
        if key and (wrong := fault_of_key(key)) is not None:
            raise WrongKey(f"JOBTAPE_API_KEY, or the client's api_key, cannot be an API key: {wrong}")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        transports = [transport_to(address)]  # now, so that a proxy that cannot be used is reported at once

        def make() -> httpx.AsyncClient:
            transport = transports.pop() if transports else transport_to(address)
            return httpx.AsyncClient(headers=headers, timeout=self.policy.timeout, transport=transport)

        self._pools = Pools(make)

    async def close(self) -> None:
        """Close the connections of all event loops."""
        await self._pools.close()

    async def request(self, method: str, path: str, *, repeatable: bool = True, **options: Any) -> Answer:
        """Send a request and return the answer.

        ``repeatable``: whether a retry is safe. ``options`` are those of httpx. Raises ClientClosed and ApiError.
        Unreachable is raised only when no try can have reached the API.
        """
        deadline = time.monotonic() + self.policy.patience
        doubt: ApiError | None = None
        for pause in pauses():
            try:
                return await self._request_once(method, path, options)
            except (Unreachable, NoAnswer, Unavailable) as error:
                if doubt is None and not isinstance(error, Unreachable):
                    doubt = error
                wait = self.pause_after(error, pause)
                if not repeatable or wait is None or time.monotonic() + wait > deadline:
                    if isinstance(error, Unreachable) and doubt is not None:
                        # This try did not reach the API; an earlier one may have.
                        raise doubt from error
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("pauses have no end")

    def pause_after(self, error: ApiError, pause: float) -> float | None:
        """Return the seconds to wait before a retry after ``error``, or None when a retry is not allowed."""
        if isinstance(error, Unavailable):
            return error.retry_after
        return pause if self.policy.after_cuts else None

    @asynccontextmanager
    async def stream(self, path: str, *, silence: float, **options: Any) -> AsyncIterator[httpx.Response]:
        """Open a streaming GET request and yield the answer before its body is read.

        After ``silence`` seconds without a byte the connection counts as dead. Raises ApiError, also inside the block.
        """
        timeout = httpx.Timeout(self.policy.timeout, read=silence)
        options |= {"timeout": timeout, "extensions": {"trace": self._pools.trace}}
        with self._errors():
            async with self._pools.here().stream("GET", self.url + path, **options) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise error_of(answer, self.policy.hint)
                yield answer

    async def _request_once(self, method: str, path: str, options: dict[str, Any]) -> Answer:
        with self._errors():
            extensions = {"trace": self._pools.trace}
            answer = await self._pools.here().request(method, self.url + path, extensions=extensions, **options)
        return read_answer(answer, self.policy.hint)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn httpx's errors into ApiError."""
        hint = self.policy.hint
        if self._pools.closed:
            raise ClientClosed
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise WrongAddress(f"{self._shown} is not an API's address ({error}): check {hint}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(
                f"no API at {self._shown} ({reason}): start one with `jobtape up`, or set its address with {hint}"
            ) from None
        except UnicodeEncodeError as error:
            raise ApiError(f"nothing was sent: {error.object!a} is not valid text ({error.reason})") from None
        except httpx.HTTPError as error:
            raise NoAnswer(f"{self._shown} did not answer ({str(error) or type(error).__name__})") from None
