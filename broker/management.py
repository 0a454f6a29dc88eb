"""Reads from RabbitMQ's management API what AMQP does not show: which queues exist, their policies, and the bindings of
an exchange. Creates users.

The API shows a new queue, a new policy and new numbers some seconds later.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx

from jobtape.broker.permissions import Permissions
from jobtape.schemas.topology import Topology
from jobtape.schemas.urls import each_url, without_password

LIMIT: Final = 5.0
"""Seconds that a call may take."""
LENGTH_LIMITS: Final = ("max-length", "max-length-bytes")
ENABLE: Final = (
    "enable it (`rabbitmq-plugins enable rabbitmq_management`), or set `JOBTAPE_MANAGEMENT_URL` to its address"
)
HINT: Final = f"{ENABLE}; or check yourself with "
"""What to do about ``Unseen``; a command of rabbitmqctl follows."""
_ERRORS: Final = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What calls and answers that are none of RabbitMQ's raise."""
_COLUMNS: Final = "name,arguments,policy,operator_policy,effective_policy_definition,messages,consumers"


class Unseen(Exception):
    """The management API cannot be used; the message is one line with the reason. ``silent``: nothing answered."""

    def __init__(self, reason: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class SeenQueue:
    """A queue with its ``arguments``, and what its policies define (with keys that have no ``x-``)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    policies: str = ""
    """The names of the policy and of the operator policy that apply."""
    messages: int | None = None
    consumers: int | None = None
    """None in the first seconds of the queue."""

    @property
    def bounded(self) -> bool:
        """Whether the queue has a length limit, or is a stream with an age limit."""
        stream = self.arguments.get("x-queue-type") == "stream" and "x-max-age" in self.arguments
        return stream or any(self.limit(name) is not None for name in LENGTH_LIMITS)

    def limit(self, name: str) -> int | None:
        """Return the limit of this name, without ``x-``: of argument and policies the smaller, which applies."""
        values = (self.arguments.get(f"x-{name}"), self.policy.get(name))
        return min((value for value in values if value is not None), default=None)


class _FirstThatAnswers(httpx.AsyncBaseTransport):
    """Sends each request to the first host of ``bases`` that accepts a connection, and moves the others behind it."""

    def __init__(self, bases: list[httpx.URL], verify: ssl.SSLContext | bool) -> None:
        self._bases = bases
        self._inner = httpx.AsyncHTTPTransport(verify=verify, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for _ in self._bases[1:]:
            try:
                return await self._send(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent
                self._bases.append(self._bases.pop(0))
        return await self._send(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        base = self._bases[0]
        request.url = request.url.copy_with(scheme=base.scheme, host=base.host, port=base.port)
        request.headers["host"] = base.netloc.decode()
        return await self._inner.handle_async_request(request)


class ManagementApi:
    """The management API at ``url``, by default at its usual port of the broker's hosts; several are tried in turn.
    ``broker`` is the AMQP URL, whose user and virtual host apply. Every call raises Unseen, after five seconds at the
    latest.
    """

    def __init__(self, broker: str, url: str | None) -> None:
        hosts = [urlsplit(each) for each in each_url(broker)]
        parts = hosts[0]
        if url is None:
            self._bases = [_base_of(each.scheme, each.hostname or "") for each in hosts]
        else:
            self._bases = [each.rstrip("/") for each in each_url(url)]
        self._hosts = [httpx.URL(each) for each in self._bases]
        self._user = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
        self._files = dict(parse_qsl(parts.query)) if parts.scheme == "amqps" else {}
        self._vhost = quote(unquote(parts.path[1:]) or "/", safe="")

    async def queues(self, names: Iterable[str]) -> list[SeenQueue]:
        """Return those of the queues that exist."""
        wanted = set(names)
        async with self._client() as client:
            return [queue for queue in await self._queues(client) if queue.name in wanted]

    async def namespace_queues(self, topology: Topology) -> list[SeenQueue]:
        """Return all queues of the namespace, by name."""
        async with self._client() as client:
            found = [queue for queue in await self._queues(client) if topology.is_ours(queue.name)]
        return sorted(found, key=lambda queue: queue.name)

    async def bound_queues(self, exchanges: Sequence[str]) -> dict[str, list[SeenQueue]]:
        """Return the bound queues of each exchange, by name."""
        async with self._client() as client:
            bound = {exchange: await self._names_bound(client, exchange) for exchange in exchanges}
            queues = sorted(await self._queues(client), key=lambda queue: queue.name)
        return {exchange: [queue for queue in queues if queue.name in names] for exchange, names in bound.items()}

    async def subscriber_queues(self, topology: Topology) -> list[SeenQueue]:
        """Return the queues of durable subscriptions, then the others that are bound to the results, each by name."""
        async with self._client() as client:
            bound = await self._names_bound(client, topology.results.name)
            queues = await self._queues(client)
        ours = {queue.name: topology.subscription_of(queue.name) is not None for queue in queues}
        found = [queue for queue in queues if ours[queue.name] or queue.name in bound]
        return sorted(found, key=lambda queue: (not ours[queue.name], queue.name))

    async def set_user(self, name: str, password: str, permissions: Permissions) -> bool:
        """Create the user ``name`` with this password and without a tag, if there is none. Then set its permissions in
        the virtual host. Returns whether it is new; the password of another one stays as it is.
        """
        async with self._client() as client:
            user = f"/api/users/{quote(name, safe='')}"
            found = await client.get(user)
            missing = found.status_code == 404
            if missing:
                made = await client.put(user, json={"password": password, "tags": ""})
                made.raise_for_status()
            else:
                found.raise_for_status()
            path = f"/api/permissions/{self._vhost}/{quote(name, safe='')}"
            (await client.put(path, json=asdict(permissions))).raise_for_status()
        return missing

    async def _queues(self, client: httpx.AsyncClient) -> list[SeenQueue]:
        return [_queue(each) for each in await _get(client, f"/api/queues/{self._vhost}?columns={_COLUMNS}")]

    async def _names_bound(self, client: httpx.AsyncClient, exchange: str) -> set[str]:
        path = f"/api/exchanges/{self._vhost}/{quote(exchange, safe='')}/bindings/source"
        return {each["destination"] for each in await _get(client, path) if each["destination_type"] == "queue"}

    def _tls(self) -> ssl.SSLContext | None:
        """Return what checks certificates by the authority in the AMQP URL, and shows the certificate in it; None
        without one. Raises OSError.
        """
        if "cafile" not in self._files:
            return None
        context = ssl.create_default_context(cafile=self._files["cafile"])
        if "certfile" in self._files:
            context.load_cert_chain(self._files["certfile"], self._files.get("keyfile"))
        return context

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        shown = f"the management API at {' or '.join(map(without_password, self._bases))}"
        # Plain HTTP needs no certificates, and reading them would hold up the event loop.
        # A host that is cut off must leave time for the others.
        limits = httpx.Timeout(LIMIT, connect=LIMIT / (len(self._bases) + 1) if len(self._bases) > 1 else LIMIT)
        try:
            verify = self._bases[0].startswith("https:") and (self._tls() or True)
            transport = _FirstThatAnswers(self._hosts, verify)
            async with (
                asyncio.timeout(LIMIT),
                httpx.AsyncClient(
                    base_url=self._bases[0], auth=self._user, timeout=limits, trust_env=False, transport=transport
                ) as client,
            ):
                yield client
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 401:
                raise Unseen(f"{shown} refuses this user: give it the tag `monitoring`") from None
            raise Unseen(f"{shown} answers {error.response.status_code}") from None
        except _ERRORS as error:
            # The message of httpx may contain the URL with its password.
            reason = type(error).__name__ if "@" in str(error) else str(error) or type(error).__name__
            raise Unseen(f"{shown} does not answer ({reason})", silent=True) from None


def _base_of(scheme: str, hostname: str) -> str:
    secure = scheme == "amqps"
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{'https' if secure else 'http'}://{host}:{15671 if secure else 15672}"


def _queue(seen: Mapping[str, Any]) -> SeenQueue:
    return SeenQueue(
        seen["name"],
        seen.get("arguments") or {},
        seen.get("effective_policy_definition") or {},
        " and ".join(filter(None, (seen.get("policy"), seen.get("operator_policy")))),
        seen.get("messages"),
        seen.get("consumers"),
    )


async def _get(client: httpx.AsyncClient, path: str) -> Any:
    return (await client.get(path)).raise_for_status().json()
