"""Sets policies for one namespace, before its queues are declared."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tools.brokers.node import PrivateNode


@dataclass(frozen=True)
class Policy:
    """A policy on queues of Jobtape.

    ``on`` is a prefix of the queue names after the namespace and its dot. ``operator`` makes it an operator policy.
    """

    definition: dict[str, Any] = field(default_factory=dict)
    on: str = ""
    name: str = "limits"
    operator: bool = False


@contextmanager
def policies(node: PrivateNode, namespace: str, given: Sequence[Policy]) -> Iterator[None]:
    """Set the policies, and clear them at the end."""
    for each in given:
        kind = "set_operator_policy" if each.operator else "set_policy"
        pattern = rf"^{namespace}\.{each.on}"
        node.ctl(kind, f"{namespace}-{each.name}", pattern, json.dumps(each.definition), "--apply-to", "queues")
    try:
        yield
    finally:
        for each in given:
            kind = "clear_operator_policy" if each.operator else "clear_policy"
            node.ctl(kind, f"{namespace}-{each.name}")
