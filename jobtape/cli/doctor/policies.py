"""Checks the broker's policies that apply to our queues, and their effect on jobs."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from jobtape.cli.doctor.administration import Unseen
from jobtape.cli.doctor.broker_policies import all_policies, policies_of
from jobtape.cli.doctor.findings import Findings
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.topology import Queue, Topology
from jobtape.settings import Settings
from jobtape.view.store import Store

SHOWN: Final = 3
DOCS: Final = "see docs/reference/broker-policies.md"
LOOK: Final = (
    "name the management API with JOBTAPE_MANAGEMENT_URL, or a command for rabbitmqctl with JOBTAPE_RABBITMQCTL; or "
    "look at `rabbitmqctl list_policies` and `rabbitmqctl list_operator_policies` yourself"
)
Kind = Literal["tape", "cancels", "work", "ladder", "kept"]

_MEANING: Final[Mapping[tuple[str, Kind], str]] = {
    ("message-ttl", "work"): "jobs that wait longer expire, and are put back later",
    ("message-ttl", "ladder"): "delays are shortened, and what comes early is sent back",
    ("message-ttl", "kept"): "jobs that the broker gave up may vanish, and are missed for JOBTAPE_RESCUE_AFTER",
    ("max-length", "work"): "submissions beyond it are answered 503 queue-full",
    ("max-length-bytes", "work"): "submissions beyond it are answered 503 queue-full",
    ("max-length", "ladder"): "delayed submissions beyond it are answered 503 queue-full, and retries wait",
    ("max-length-bytes", "ladder"): "delayed submissions beyond it are answered 503 queue-full, and retries wait",
    ("max-length", "kept"): "jobs that the broker gave up may vanish, and are missed for JOBTAPE_RESCUE_AFTER",
    ("max-length-bytes", "kept"): "jobs that the broker gave up may vanish, and are missed for JOBTAPE_RESCUE_AFTER",
    ("expires", "work"): "a queue without workers is deleted with its jobs, which are missed for JOBTAPE_RESCUE_AFTER",
    ("expires", "ladder"): "the queue is deleted with its delayed jobs, which are missed for JOBTAPE_RESCUE_AFTER",
    ("expires", "kept"): "the queue is deleted with what it holds while no projector uses it",
    ("delivery-limit", "work"): "jobs are given up after fewer returns, also those that were never begun",
    ("delivery-limit", "kept"): "messages may be dropped when projectors end often",
    ("max-age", "tape"): "the tape is kept for less time: a projector that is away longer finds a gap",
    ("max-length-bytes", "tape"): "less of the tape is kept: a projector that is away longer finds a gap",
    ("max-age", "cancels"): "workers may not learn of cancellations of jobs that wait longer",
    ("max-length-bytes", "cancels"): "workers may not learn of cancellations of jobs that wait longer",
}
"""What a key of a policy means for a queue of that kind, where it takes effect. Of two values the smaller holds."""


def examine_policies(found: Findings, settings: Settings, topology: Topology, store: Store) -> None:
    """Add findings about policies. Blocks."""
    try:
        policies = all_policies(settings.rabbitmq_url, settings.management_url, settings.rabbitmqctl)
    except Unseen as error:
        _examine_effects(found, store)
        found.note("broker", f"which policies hold for our queues cannot be seen: {error}", LOOK)
        return
    affected: dict[tuple[str, str, str, bool], list[str]] = {}
    for queue, kind in _queues(topology):
        arguments = queue.declared_arguments()
        for policy in policies_of(queue.name, "stream" if kind in ("tape", "cancels") else "quorum", policies):
            for key, value in policy.definition.items():
                meaning = _MEANING.get((key, kind))
                if meaning is not None and _matters(key, value, arguments):
                    affected.setdefault((policy.name, f"{key}: {value}", meaning, policy.operator), []).append(
                        queue.name
                    )
    for (name, what, meaning, operator), names in affected.items():
        what_it_is, option = ("operator policy", "_operator") if operator else ("policy", "")
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        found.wrong(
            "broker",
            f"the {what_it_is} {name!r} sets {what} on {shown}: {meaning}",
            f"change its pattern so that it leaves out our queues (`rabbitmqctl set{option}_policy`), or remove it "
            f"(`rabbitmqctl clear{option}_policy {name}`); {DOCS}",
        )
    if not affected:
        found.fine("broker", "no policy limits our queues")


def _queues(topology: Topology) -> list[tuple[Queue, Kind]]:
    found: list[tuple[Queue, Kind]] = [(topology.log, "tape"), (topology.cancels, "cancels")]
    found += [(topology.work_queue(queue), "work") for queue in topology.queues]
    found += [(topology.delay_queue(level), "ladder") for level in range(topology.delay_levels)]
    found += [(topology.dead_queue, "kept"), (topology.unroutable_queue, "kept")]
    return found


def _matters(key: str, value: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether the policy's value is smaller than the queue's own argument."""
    own = arguments.get(f"x-{key}")
    if isinstance(own, int) and isinstance(value, int):
        return value < own
    return bool(own != value)


def _examine_effects(found: Findings, store: Store) -> None:
    """Add findings about dropped messages, which show that a policy exists when policies cannot be read."""
    try:
        drops = store.recent_drops()
    except ViewUnavailable:
        return  # the check of the view reports why
    for (queue, reason), n in sorted(drops.items()):
        key = "message-ttl" if reason == "expired" else "max-length or max-length-bytes"
        found.wrong(
            "broker",
            f"the broker has dropped the work of jobs from the queue {queue} {n} times of late ({reason}): a policy "
            f"sets {key} on it. They are put back",
            f"find it with `rabbitmqctl list_policies` and `rabbitmqctl list_operator_policies`; {DOCS}",
        )
