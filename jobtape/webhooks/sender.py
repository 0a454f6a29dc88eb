"""Sends one request to an endpoint.

The name is looked up once for each attempt, the addresses are checked, and the connection goes to an address that was
checked: a name whose address changes in between leads nowhere else. The certificate is still checked against the name.
Redirects are not followed, proxies of the environment are not used, and of the answer little is read. Each request has
a connection of its own, because one that is shared could belong to another name with the same address.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final

import httpx

from jobtape.webhooks.addresses import Network, fault_of_addresses

TIMEOUT: Final = 20.0
"""Seconds for look-up, connection, request and answer together."""
MOST_ANSWER: Final = 64 * 1024
"""Bytes that are read of an answer."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host name, for a port. Raises OSError."""


class NotSent(Exception):
    """There was no answer, or the request must not be sent. The text says why."""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What an endpoint answered. ``seconds``: how long it took. ``retry_after``: seconds that it asks to wait."""

    status: int
    seconds: float
    retry_after: float | None


async def resolve(host: str, port: int) -> Sequence[str]:
    """Look a name up as this machine does."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Sender:
    """``allowed``: networks that requests may go to although they are not public. ``timeout``: seconds."""

    def __init__(self, allowed: Collection[Network], *, resolver: Resolver = resolve, timeout: float = TIMEOUT) -> None:
        self._allowed = allowed
        self._resolve = resolver
        self._timeout = timeout
        # As httpx makes it by default, with SSL_CERT_FILE and SSL_CERT_DIR. It takes long, so there is one.
        self._tls = httpx.create_ssl_context(trust_env=True)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> HookAnswer:
        """Post ``body`` and return the answer. Raises NotSent."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                target = httpx.URL(url)
                address = await self._address_of(target)
                status, retry_after = await self._post(target, address, headers, body)
        except TimeoutError:
            raise NotSent(f"no answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NotSent(f"{type(error).__name__}: {error}"[:300]) from None
        return HookAnswer(status, time.monotonic() - began, retry_after)

    async def _address_of(self, url: httpx.URL) -> str:
        try:
            found = list(await self._resolve(url.host, url.port or (443 if url.scheme == "https" else 80)))
        except OSError as error:
            raise NotSent(f"the name {url.host} cannot be looked up: {error}") from None
        if (fault := fault_of_addresses(url, [ip_address(each) for each in found], self._allowed)) is not None:
            raise NotSent(fault)
        return found[0]

    async def _post(
        self, url: httpx.URL, address: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, float | None]:
        transport = httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, retries=0)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=self._timeout) as client:
            request = client.build_request(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers={
                    "Content-Type": "application/json",
                    "User-Agent": "Jobtape",
                    "Accept-Encoding": "identity",
                    **headers,
                    "Host": url.netloc.decode("ascii"),
                },
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                read = 0
                async for chunk in answer.aiter_raw():
                    read += len(chunk)
                    if read >= MOST_ANSWER:
                        break
            finally:
                await answer.aclose()
            return answer.status_code, retry_after(answer.headers.get("retry-after"), datetime.now(UTC))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a header ``Retry-After`` asks for: a number, or a date; None if it is neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a zone of many digits
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
