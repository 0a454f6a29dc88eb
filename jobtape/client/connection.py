"""Requests to the API, each until it is answered or the client's patience is over. The one place that speaks HTTP.

What may be asked twice is asked again while the API says that it cannot answer just now (503, or 409 with Retry-After),
and by default also when there is no connection or it ends before the answer. Every error is an ApiError, but
for ClientClosed.
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

from jobtape.client.answers import error_of
from jobtape.client.errors import ApiError, ClientClosed, NoAnswer, Unavailable, Unreachable, WrongAddress, WrongKey
from jobtape.client.pools import Pools
from jobtape.client.proxies import transport_to
from jobtape.environment import fault_of_key, fault_of_url, trimmed
from jobtape.schemas.urls import without_password

SHORTEST: Final = 0.1
LONGEST: Final = 5.0
GROWTH: Final = 1.7


def pauses(longest: float = LONGEST) -> Iterator[float]:
    """Seconds, without end."""
    pause = SHORTEST
    while True:
        # Clients that were cut off together must not come back together.
        yield pause * random.uniform(0.6, 1.0)  # noqa: S311  # nothing secret hangs on it
        pause = min(pause * GROWTH, longest)


DEFAULT_URL: Final = "http://127.0.0.1:8000"
IN_PYTHON: Final = "the client's url or JOBTAPE_URL"


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """``timeout``: seconds until a request counts as unanswered. ``patience``: seconds during which one that may be
    asked twice is asked again. ``after_cuts``: also when there was no connection. ``hint``: what texts call the place
    that says which API is meant.
    """

    timeout: float = 15.0
    patience: float = 30.0
    after_cuts: bool = True
    hint: str = IN_PYTHON


class ApiConnection:
    """``url`` and ``api_key`` are those of JOBTAPE_URL and JOBTAPE_API_KEY unless given. Nothing is sent yet.

    Raises WrongAddress when ``url`` is none, or cannot be reached by the proxy of the environment, and WrongKey when
    ``api_key`` cannot be one.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, policy: RequestPolicy | None = None) -> None:
        self.policy = policy or RequestPolicy()
        given = trimmed(url if url is not None else os.environ.get("JOBTAPE_URL") or DEFAULT_URL)
        self.url = given.rstrip("/")
        self._shown = self.url if "@" not in self.url else without_password(self.url)
        try:
            address = httpx.URL(self.url)
            sound = address.scheme in ("http", "https") and address.host and not re.search(r"\s", self.url)
            fault = fault_of_url(self.url) if sound else "it is not http://host:port"
        except (httpx.InvalidURL, ValueError) as error:
            fault = str(error)
        if fault is not None:
            raise WrongAddress(
                f"{self._shown} is no address of an API ({fault}): give {self.policy.hint} as http://host:port"
            )
        key = trimmed(api_key if api_key is not None else os.environ.get("JOBTAPE_API_KEY", ""))
        if key and (wrong := fault_of_key(key)) is not None:
            raise WrongKey(f"JOBTAPE_API_KEY, or the client's api_key, cannot be one: {wrong}")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        transports = [transport_to(address)]  # now, so that a proxy that cannot be used is said at once

        def make() -> httpx.AsyncClient:
            transport = transports.pop() if transports else transport_to(address)
            return httpx.AsyncClient(headers=headers, timeout=self.policy.timeout, transport=transport)

        self._pools = Pools(make)

    async def close(self) -> None:
        """End the connections, whichever event loop they are on."""
        await self._pools.close()

    async def ask(self, method: str, path: str, *, twice: bool = True, **more: Any) -> httpx.Response:
        """A good answer (2xx or 304). ``twice``: it may be asked again. ``more`` is for httpx. Raises ClientClosed, and
        ApiError: Unreachable only when none of the tries can have arrived.
        """
        deadline = time.monotonic() + self.policy.patience
        doubt: ApiError | None = None
        for pause in pauses():
            try:
                return await self._ask(method, path, more)
            except (Unreachable, NoAnswer, Unavailable) as error:
                if doubt is None and not isinstance(error, Unreachable):
                    doubt = error
                wait = self.pause_after(error, pause)
                if not twice or wait is None or time.monotonic() + wait > deadline:
                    if isinstance(error, Unreachable) and doubt is not None:
                        # This try did nothing; an earlier one may have.
                        raise doubt from error
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("pauses have no end")

    def pause_after(self, error: ApiError, pause: float) -> float | None:
        """Seconds until it is worth asking again, None when it is not."""
        if isinstance(error, Unavailable):
            return error.retry_after
        return pause if self.policy.after_cuts else None

    @asynccontextmanager
    async def stream(self, path: str, *, silence: float, **more: Any) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come. ``silence``: seconds without a byte that mean the connection is dead.

        Raises ApiError, also within the block.
        """
        timeout = httpx.Timeout(self.policy.timeout, read=silence)
        more |= {"timeout": timeout, "extensions": {"trace": self._pools.trace}}
        with self._errors():
            async with self._pools.here().stream("GET", self.url + path, **more) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise error_of(answer, self.policy.hint)
                yield answer

    async def _ask(self, method: str, path: str, more: dict[str, Any]) -> httpx.Response:
        with self._errors():
            extensions = {"trace": self._pools.trace}
            answer = await self._pools.here().request(method, self.url + path, extensions=extensions, **more)
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        raise error_of(answer, self.policy.hint)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """httpx's errors become ours."""
        hint = self.policy.hint
        if self._pools.closed:
            raise ClientClosed
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise WrongAddress(f"{self._shown} is no address of an API ({error}): see {hint}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            said = str(error) or type(error).__name__
            raise Unreachable(
                f"no API at {self._shown} ({said}): start one with `jobtape up`, or say where it is with {hint}"
            ) from None
        except UnicodeEncodeError as error:
            raise ApiError(f"nothing was sent: {error.object!a} is no text ({error.reason})") from None
        except httpx.HTTPError as error:
            raise NoAnswer(f"{self._shown} did not answer ({str(error) or type(error).__name__})") from None
