"""Reads from RabbitMQ's management API what AMQP does not show: policies of queues, and bindings of an exchange.

The API shows a new policy some seconds after it was set.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import httpx

from jobtape.schemas.urls import without_password
from jobtape.settings import Settings

LIMIT: Final = 5.0
"""Seconds that one answer may take."""
LENGTH_LIMITS: Final = ("max-length", "max-length-bytes")
HINT: Final = (
    "enable it (`rabbitmq-plugins enable rabbitmq_management`), or set JOBTAPE_MANAGEMENT_URL to its address; or check "
    "yourself with "
)
"""What to do about ``Unseen``; a command of rabbitmqctl follows."""


class Unseen(Exception):
    """The management API cannot be used; the message is one line with the reason."""


@dataclass(frozen=True, slots=True)
class SeenQueue:
    """A queue with its ``arguments``, and what its policies define (with keys that have no ``x-``)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    policies: str = ""
    """The names of the policy and of the operator policy that apply."""

    @property
    def bounded(self) -> bool:
        """Whether the queue has a length limit, or is a stream with an age limit."""
        stream = self.arguments.get("x-queue-type") == "stream" and "x-max-age" in self.arguments
        return stream or any(f"x-{name}" in self.arguments or name in self.policy for name in LENGTH_LIMITS)


def queues_of(settings: Settings, names: Iterable[str]) -> list[SeenQueue]:
    """Return those of the queues that exist. Blocks for some seconds; raises Unseen."""
    wanted = set(names)
    columns = "name,arguments,policy,operator_policy,effective_policy_definition"
    with _api(settings) as (client, vhost):
        seen = _get(client, f"/api/queues/{vhost}?columns={columns}")
        return [_queue(each) for each in seen if each["name"] in wanted]


def bound_queues(settings: Settings, exchanges: Sequence[str]) -> dict[str, list[SeenQueue]]:
    """Return the bound queues of each exchange. Blocks for some seconds; raises Unseen."""
    found: dict[str, list[SeenQueue]] = {}
    with _api(settings) as (client, vhost):
        for exchange in exchanges:
            bindings = _get(client, f"/api/exchanges/{vhost}/{quote(exchange, safe='')}/bindings/source")
            names = sorted({each["destination"] for each in bindings if each["destination_type"] == "queue"})
            found[exchange] = [_queue(_get(client, f"/api/queues/{vhost}/{quote(name, safe='')}")) for name in names]
    return found


def _queue(seen: Mapping[str, Any]) -> SeenQueue:
    policies = " and ".join(filter(None, (seen.get("policy"), seen.get("operator_policy"))))
    return SeenQueue(seen["name"], seen["arguments"] or {}, seen.get("effective_policy_definition") or {}, policies)


@contextmanager
def _api(settings: Settings) -> Iterator[tuple[httpx.Client, str]]:
    """Give a client with the user of the AMQP URL, and the virtual host, quoted for a path. Raises Unseen."""
    parts = urlsplit(settings.rabbitmq_url)
    secure = parts.scheme == "amqps"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    default = f"{'https' if secure else 'http'}://{host}:{15671 if secure else 15672}"
    base = (settings.management_url or default).rstrip("/")
    user = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    shown = f"the management API at {without_password(base)}"
    with httpx.Client(base_url=base, auth=user, timeout=LIMIT, trust_env=False) as client:
        try:
            yield client, quote(unquote(parts.path[1:]) or "/", safe="")
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 401:
                raise Unseen(f"{shown} refuses this user: give it the tag `monitoring`") from None
            raise Unseen(f"{shown} answers {error.response.status_code}") from None
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            # The message of httpx may contain the URL with its password.
            reason = type(error).__name__ if "@" in str(error) else str(error) or type(error).__name__
            raise Unseen(f"{shown} does not answer ({reason})") from None


def _get(client: httpx.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()
