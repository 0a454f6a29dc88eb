"""Checks the broker's policies that apply to our queues."""

import asyncio
from typing import Any, Final

from jobtape.broker.management import HINT, ManagementApi, Unseen
from jobtape.cli.doctor.findings import Findings, first_of
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings

SHOWN: Final = 3
COMMANDS: Final = "`rabbitmqctl list_policies` and `rabbitmqctl list_operator_policies`"
DOCS: Final = "docs/reference/broker-policies.md says what it does to jobs"
HARMFUL: Final[dict[str, tuple[str, ...]]] = {
    "quorum": ("message-ttl", "max-length", "max-length-bytes", "expires", "delivery-limit"),
    "stream": ("max-age", "max-length-bytes"),
}
"""The keys of a policy that change what happens to jobs, by the type of the queue."""


def examine_policies(found: Findings, settings: Settings, topology: Topology) -> None:
    """Add findings about policies. Blocks."""
    ours = {queue.name: queue.declared_arguments() for queue in (topology.log, *topology.declared_queues())}
    try:
        queues = asyncio.run(ManagementApi(settings.rabbitmq_url, settings.management_url).queues(ours))
    except Unseen as error:
        found.note("broker", f"it is not known which policies apply to our queues: {error}", HINT + COMMANDS)
        return
    affected: dict[tuple[str, str], list[str]] = {}
    for queue in queues:
        arguments = ours[queue.name]
        for key in HARMFUL[arguments["x-queue-type"]]:
            value = queue.policy.get(key)
            if value is not None and _is_smaller(value, arguments.get(f"x-{key}")):
                affected.setdefault((queue.policies, f"{key}: {value}"), []).append(queue.name)
    for (policies, what), names in affected.items():
        found.wrong(
            "broker",
            f"the policy {policies} sets {what} on {first_of(names, SHOWN)}; {DOCS}",
            "change its pattern so that it leaves out our queues, or remove it (`rabbitmqctl clear_policy`, "
            "`clear_operator_policy`)",
        )
    if not affected:
        found.fine("broker", "no policy limits our queues")


def _is_smaller(value: Any, own: Any) -> bool:
    """Return whether the policy's value is smaller than the queue's own argument. The smaller one applies."""
    return value < own if isinstance(own, int) and isinstance(value, int) else bool(own != value)
