"""Reads from RabbitMQ's management API what AMQP does not show: policies, and the queues bound to an exchange."""

import re
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

_APPLIES_TO: Final[dict[str, frozenset[str]]] = {
    "quorum": frozenset({"all", "queues", "quorum_queues"}),
    "stream": frozenset({"all", "queues", "streams"}),
}


class Unseen(Exception):
    """The management API cannot be used; the message is one line with the reason."""


@dataclass(frozen=True, slots=True)
class BoundQueue:
    """A queue that is bound to an exchange, with its ``arguments`` and its ``policy`` (whose keys have no ``x-``)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bounded(self) -> bool:
        """Whether the queue has a length limit, or is a stream with an age limit."""
        stream = self.arguments.get("x-queue-type") == "stream" and "x-max-age" in self.arguments
        return stream or any(f"x-{name}" in self.arguments or name in self.policy for name in LENGTH_LIMITS)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of the broker. ``operator``: an operator policy, which applies in addition to the others."""

    name: str
    pattern: str
    applies_to: str
    priority: int
    definition: Mapping[str, Any]
    operator: bool = False

    def applies(self, queue: str, kind: str) -> bool:
        """Return whether it matches a queue of this name and kind (``quorum`` or ``stream``)."""
        try:
            return self.applies_to in _APPLIES_TO[kind] and re.search(self.pattern, queue) is not None
        except re.error:  # an Erlang pattern that Python does not support
            return False


def policies_of(queue: str, kind: str, policies: Iterable[Policy]) -> list[Policy]:
    """Return the policy and the operator policy that apply to the queue, if any.

    Matches as the broker does: of each sort, the policy with the highest priority applies. The API shows what the
    broker has matched only some seconds later.
    """
    found: dict[bool, Policy] = {}
    for each in policies:
        if each.applies(queue, kind) and (each.operator not in found or each.priority > found[each.operator].priority):
            found[each.operator] = each
    return [found[operator] for operator in sorted(found)]


def all_policies(settings: Settings) -> list[Policy]:
    """Return all policies of the virtual host. Blocks for some seconds; raises Unseen."""
    with _api(settings) as (client, vhost):
        return [
            Policy(each["name"], each["pattern"], each["apply-to"], int(each["priority"]), each["definition"], operator)
            for path, operator in (("policies", False), ("operator-policies", True))
            for each in _get(client, f"/api/{path}/{vhost}")
        ]


def bound_queues(settings: Settings, exchanges: Sequence[str]) -> dict[str, list[BoundQueue]]:
    """Return the bound queues of each exchange. Blocks for some seconds; raises Unseen."""
    found: dict[str, list[BoundQueue]] = {}
    with _api(settings) as (client, vhost):
        for exchange in exchanges:
            bindings = _get(client, f"/api/exchanges/{vhost}/{quote(exchange, safe='')}/bindings/source")
            names = sorted({each["destination"] for each in bindings if each["destination_type"] == "queue"})
            queues = [_get(client, f"/api/queues/{vhost}/{quote(name, safe='')}") for name in names]
            found[exchange] = [
                BoundQueue(each["name"], each["arguments"] or {}, each.get("effective_policy_definition") or {})
                for each in queues
            ]
    return found


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
