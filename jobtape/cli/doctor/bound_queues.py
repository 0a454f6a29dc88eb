"""Finds the queues that are bound to an exchange. AMQP does not show bindings.

There are two ways: RabbitMQ's management API, and ``rabbitmqctl`` when JOBTAPE_RABBITMQCTL names a command for it.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from jobtape.cli.doctor.administration import Unseen, ctl, get, management_client, no_answer, vhost_of
from jobtape.cli.doctor.broker_policies import Policy, policies_by_ctl, policies_of

LIMITS: Final = ("max-length", "max-length-bytes")


@dataclass(frozen=True, slots=True)
class BoundQueue:
    """A queue that is bound to an exchange, with its ``arguments`` and its ``policy`` (whose keys have no ``x-``)."""

    name: str
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bounded(self) -> bool:
        """Whether the queue has a length limit, or is a stream with one."""
        stream = self.arguments.get("x-queue-type") == "stream" and "x-max-age" in self.arguments
        return stream or any(f"x-{name}" in self.arguments or name in self.policy for name in LIMITS)


def bound_queues(
    amqp_url: str, management_url: str | None, ctl_command: str | None, exchanges: Sequence[str]
) -> dict[str, list[BoundQueue]]:
    """Return the bound queues by exchange. Blocks for some seconds; raises Unseen when neither way works."""
    try:
        return _by_api(amqp_url, management_url, exchanges)
    except Unseen as error:
        if ctl_command is None:
            raise
        try:
            return _by_ctl(shlex.split(ctl_command), vhost_of(amqp_url), exchanges)
        except Unseen as second:
            raise Unseen(f"{error}; {second}") from None


def _by_api(amqp_url: str, management_url: str | None, exchanges: Sequence[str]) -> dict[str, list[BoundQueue]]:
    vhost = quote(vhost_of(amqp_url), safe="")
    found: dict[str, list[BoundQueue]] = {}
    with management_client(amqp_url, management_url) as client:
        try:
            for exchange in exchanges:
                bindings = get(client, f"/api/exchanges/{vhost}/{quote(exchange, safe='')}/bindings/source")
                names = sorted({each["destination"] for each in bindings if each["destination_type"] == "queue"})
                found[exchange] = [
                    _of_api(get(client, f"/api/queues/{vhost}/{quote(each, safe='')}")) for each in names
                ]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise no_answer(client, error) from None
    return found


def _of_api(raw: Mapping[str, Any]) -> BoundQueue:
    policy = raw.get("effective_policy_definition") or {}
    return BoundQueue(raw["name"], bool(raw.get("exclusive")), raw.get("arguments") or {}, policy or {})


def _by_ctl(command: Sequence[str], vhost: str, exchanges: Sequence[str]) -> dict[str, list[BoundQueue]]:
    bindings = ctl(command, "list_bindings", vhost, "source_name", "destination_name", "destination_kind")
    queues = ctl(command, "list_queues", vhost, "name", "exclusive", "arguments")
    policies = policies_by_ctl(command, vhost)
    by_name = {each["name"]: _of_ctl(each, policies) for each in queues}
    found: dict[str, list[BoundQueue]] = {exchange: [] for exchange in exchanges}
    for exchange, name in sorted(
        {(each["source_name"], each["destination_name"]) for each in bindings if each["destination_kind"] == "queue"}
    ):
        if exchange in found and name in by_name:
            found[exchange].append(by_name[name])
    return found


def _of_ctl(raw: Mapping[str, Any], policies: Sequence[Policy]) -> BoundQueue:
    arguments = _table(raw.get("arguments"))
    held = policies_of(raw["name"], str(arguments.get("x-queue-type", "classic")), policies)
    effective = {key: value for each in held for key, value in each.definition.items()}
    return BoundQueue(raw["name"], _truth(raw.get("exclusive")), arguments, effective)


def _table(raw: Any) -> dict[str, Any]:
    """The arguments: rabbitmqctl writes them as an object, or as [name, type, value] each."""
    return dict(raw) if isinstance(raw, dict) else {each[0]: each[-1] for each in raw or []}


def _truth(value: Any) -> bool:
    return value is True or value == "true"
