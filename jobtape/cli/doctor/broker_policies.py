"""Finds the policies and operator policies that apply to a queue.

Queue names are matched here as the broker does it: of each kind, the matching policy with the highest priority applies.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from jobtape.cli.doctor.administration import Unseen, ctl, get, management_client, no_answer, vhost_of

_KINDS: Final[dict[str, frozenset[str]]] = {
    "quorum": frozenset({"all", "queues", "quorum_queues"}),
    "stream": frozenset({"all", "queues", "streams"}),
    "classic": frozenset({"all", "queues", "classic_queues"}),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of the broker. ``operator``: an operator policy, which applies in addition to the others."""

    name: str
    pattern: str
    applies_to: str
    priority: int
    definition: Mapping[str, Any]
    operator: bool = False

    def holds_for(self, queue: str, kind: str) -> bool:
        """Return whether it matches a queue of this name and kind (``quorum``, ``stream`` or ``classic``)."""
        try:
            return self.applies_to in _KINDS[kind] and re.search(self.pattern, queue) is not None
        except re.error:  # an Erlang pattern that Python does not support
            return False


def policies_of(queue: str, kind: str, policies: Iterable[Policy]) -> list[Policy]:
    """Return the policy and the operator policy that apply to the queue, if any."""
    found: dict[bool, Policy] = {}
    for each in policies:
        if each.holds_for(queue, kind) and (
            each.operator not in found or each.priority > found[each.operator].priority
        ):
            found[each.operator] = each
    return [found[operator] for operator in sorted(found)]


def all_policies(amqp_url: str, management_url: str | None, ctl_command: str | None) -> list[Policy]:
    """Return all policies of the virtual host. Blocks for some seconds; raises Unseen when neither way works."""
    try:
        return _by_api(amqp_url, management_url)
    except Unseen as error:
        if ctl_command is None:
            raise
        try:
            return policies_by_ctl(shlex.split(ctl_command), vhost_of(amqp_url))
        except Unseen as second:
            raise Unseen(f"{error}; {second}") from None


def _by_api(amqp_url: str, management_url: str | None) -> list[Policy]:
    vhost = quote(vhost_of(amqp_url), safe="")
    with management_client(amqp_url, management_url) as client:
        try:
            return [
                _policy(each, operator=operator)
                for path, operator in (("policies", False), ("operator-policies", True))
                for each in get(client, f"/api/{path}/{vhost}")
            ]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise no_answer(client, error) from None


def policies_by_ctl(command: Sequence[str], vhost: str) -> list[Policy]:
    """Return all policies of the virtual host from rabbitmqctl. Raises Unseen."""
    return [
        _policy(each, operator=operator)
        for what, operator in (("list_policies", False), ("list_operator_policies", True))
        for each in ctl(command, what, vhost)
    ]


def _policy(raw: Mapping[str, Any], *, operator: bool) -> Policy:
    definition = raw.get("definition") or {}
    return Policy(
        raw["name"],
        raw["pattern"],
        str(raw.get("apply-to", "all")),
        int(raw.get("priority", 0)),
        json.loads(definition) if isinstance(definition, str) else definition,
        operator,
    )
