"""Requests to the API, each until it is answered or the client's patience is over. The one place that speaks HTTP.

What may be asked twice is asked again while the API says that it cannot answer just now (503, or 409 with Retry-After),
and unless told otherwise also when there is no connection or it ends before the answer. Every error is an ApiError, but
for ClientClosed.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import httpx

from jobtape import forks
from jobtape.client.backoff import pauses
from jobtape.client.errors import ApiError, ClientClosed, NoAnswer, Unavailable, Unreachable, WrongAddress
from jobtape.client.problems import error_of

DEFAULT_URL: Final = "http://127.0.0.1:8000"
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
IN_PYTHON: Final = "the client's url or JOBTAPE_URL"


@dataclass(frozen=True, slots=True)
class Manners:
    """``timeout``: seconds until a request counts as unanswered. ``patience``: seconds during which one that may be
    asked twice is asked again. ``after_cuts``: also when there was no connection. ``hint``: what texts call the place
    that says which API is meant.
    """

    timeout: float = 15.0
    patience: float = 30.0
    after_cuts: bool = True
    hint: str = IN_PYTHON


class Connection:
    """``url`` and ``api_key`` are those of JOBTAPE_URL and JOBTAPE_API_KEY unless given. Nothing is sent yet.

    Raises WrongAddress when ``url`` is none.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, manners: Manners | None = None) -> None:
        self.manners = manners or Manners()
        given = url if url is not None else os.environ.get("JOBTAPE_URL") or DEFAULT_URL
        self.url = given.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise WrongAddress(f"{given} is no address of an API: give {self.manners.hint} as http://host:port")
        key = api_key if api_key is not None else os.environ.get("JOBTAPE_API_KEY")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            # A proxy of the environment is for the internet, not for this machine.
            local = httpx.URL(self.url).host in LOOPBACK
        except httpx.InvalidURL as error:
            raise WrongAddress(f"{self.url} is no address of an API ({error}): see {self.manners.hint}") from None
        self._make = partial(httpx.AsyncClient, headers=headers, timeout=self.manners.timeout, trust_env=not local)
        self._http: httpx.AsyncClient | None = self._make()
        self._closed = False
        self._sockets: list[Any] = []
        self._left: list[httpx.AsyncClient | None] = []
        """Of the process that this one was forked from. Kept, since at their end they would use their event loop."""
        forks.in_child(self, Connection._leave)

    async def close(self) -> None:
        """End the connections."""
        self._closed = True
        if self._http is not None:
            await self._http.aclose()

    async def ask(self, method: str, path: str, *, twice: bool = True, **more: Any) -> httpx.Response:
        """A good answer (2xx or 304). ``twice``: it may be asked again. ``more`` is for httpx. Raises ClientClosed, and
        ApiError: Unreachable only when none of the tries can have arrived.
        """
        deadline = time.monotonic() + self.manners.patience
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
        return pause if self.manners.after_cuts else None

    @asynccontextmanager
    async def stream(self, path: str, *, silence: float, **more: Any) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come. ``silence``: seconds without a byte that mean the connection is dead.

        Raises ApiError, also within the block.
        """
        more |= {"timeout": httpx.Timeout(self.manners.timeout, read=silence), "extensions": {"trace": self._trace}}
        with self._errors():
            async with self._client().stream("GET", self.url + path, **more) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise error_of(answer, self.manners.hint)
                yield answer

    async def _ask(self, method: str, path: str, more: dict[str, Any]) -> httpx.Response:
        with self._errors():
            answer = await self._client().request(method, self.url + path, extensions={"trace": self._trace}, **more)
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        raise error_of(answer, self.manners.hint)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = self._make()
        return self._http

    async def _trace(self, what: str, more: dict[str, Any]) -> None:
        """Remember the sockets, which httpx does not show."""
        if what == "connection.connect_tcp.complete":
            self._sockets = [each for each in self._sockets if each.fileno() >= 0]
            self._sockets.append(more["return_value"].get_extra_info("socket"))

    def _leave(self) -> None:
        """In a forked child, make connections of its own from here on."""
        forks.close_here(*(each.fileno() for each in self._sockets))
        self._sockets = []
        self._left.append(self._http)
        self._http = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """httpx's errors become ours."""
        hint = self.manners.hint
        if self._closed:
            raise ClientClosed
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise WrongAddress(f"{self.url} is no address of an API ({error}): see {hint}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            said = str(error) or type(error).__name__
            raise Unreachable(
                f"no API at {self.url} ({said}): start one with `jobtape up`, or say where it is with {hint}"
            ) from None
        except httpx.HTTPError as error:
            raise NoAnswer(f"{self.url} did not answer ({str(error) or type(error).__name__})") from None
