"""Checks the broker's policies that apply to our queues, and their effect on jobs."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from jobtape.cli.doctor.findings import Findings, first_of
from jobtape.cli.doctor.management import HINT, Unseen, all_policies, policies_of
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.topology import Queue, Topology
from jobtape.settings import Settings
from jobtape.view.store import Store

SHOWN: Final = 3
COMMANDS: Final = "`rabbitmqctl list_policies` and `rabbitmqctl list_operator_policies`"
DOCS: Final = "see docs/reference/broker-policies.md"
Kind = Literal["tape", "cancels", "work", "ladder", "dead"]

_MISSED: Final = "are placed again only after JOBTAPE_RESCUE_AFTER"
_FULL: Final = "submissions beyond it are answered 503 queue-full"
_LADDER_FULL: Final = "delayed submissions beyond it are answered 503 queue-full, and retries wait"
_DROPPED: Final = f"jobs that the broker gave up may be dropped, and {_MISSED}"
_TAPE: Final = "less of the tape is kept: a projector that is stopped for longer finds a gap"
_CANCELS: Final = "workers may not be notified of cancellations of jobs that wait longer"
_MEANING: Final[Mapping[tuple[str, Kind], str]] = {
    ("message-ttl", "work"): "jobs that wait longer expire, and are put back later",
    ("message-ttl", "ladder"): "delays are shortened, and jobs that come too early are sent back",
    ("message-ttl", "dead"): _DROPPED,
    ("max-length", "work"): _FULL,
    ("max-length-bytes", "work"): _FULL,
    ("max-length", "ladder"): _LADDER_FULL,
    ("max-length-bytes", "ladder"): _LADDER_FULL,
    ("max-length", "dead"): _DROPPED,
    ("max-length-bytes", "dead"): _DROPPED,
    ("expires", "work"): f"a queue without workers is deleted with its jobs, which {_MISSED}",
    ("expires", "ladder"): f"the queue is deleted with its delayed jobs, which {_MISSED}",
    ("expires", "dead"): "the queue is deleted with its messages while no projector uses it",
    ("delivery-limit", "work"): "jobs are given up after fewer returns, also jobs that never began",
    ("delivery-limit", "dead"): "messages may be dropped when projectors end often",
    ("max-age", "tape"): _TAPE,
    ("max-length-bytes", "tape"): _TAPE,
    ("max-age", "cancels"): _CANCELS,
    ("max-length-bytes", "cancels"): _CANCELS,
}
"""The consequence of a policy's key for a queue of that kind. Keys that have no effect there are left out."""


def examine_policies(found: Findings, settings: Settings, topology: Topology, store: Store) -> None:
    """Add findings about policies. Blocks."""
    try:
        policies = all_policies(settings)
    except Unseen as error:
        _examine_effects(found, store)
        found.note("broker", f"it is not known which policies apply to our queues: {error}", HINT + COMMANDS)
        return
    affected: dict[tuple[str, str, str, bool], list[str]] = {}
    for queue, kind in _queues(topology):
        arguments = queue.declared_arguments()
        for policy in policies_of(queue.name, arguments["x-queue-type"], policies):
            for key, value in policy.definition.items():
                meaning = _MEANING.get((key, kind))
                if meaning is not None and _is_smaller(value, arguments.get(f"x-{key}")):
                    affected.setdefault((policy.name, f"{key}: {value}", meaning, policy.operator), []).append(
                        queue.name
                    )
    for (name, what, meaning, operator), names in affected.items():
        sort, option = ("operator policy", "_operator") if operator else ("policy", "")
        found.wrong(
            "broker",
            f"the {sort} {name!r} sets {what} on {first_of(names, SHOWN)}: {meaning}",
            f"change its pattern so that it leaves out our queues (`rabbitmqctl set{option}_policy`), or remove it "
            f"(`rabbitmqctl clear{option}_policy {name}`); {DOCS}",
        )
    if not affected:
        found.fine("broker", "no policy limits our queues")


def _queues(topology: Topology) -> list[tuple[Queue, Kind]]:
    found: list[tuple[Queue, Kind]] = [(topology.log, "tape"), (topology.cancels, "cancels")]
    found += [(topology.work_queue(queue), "work") for queue in topology.queues]
    found += [(topology.delay_queue(level), "ladder") for level in range(topology.delay_levels)]
    found += [(topology.dead_queue, "dead"), (topology.unroutable_queue, "dead")]
    return found


def _is_smaller(value: Any, own: Any) -> bool:
    """Return whether the policy's value is smaller than the queue's own argument. The smaller one applies."""
    return value < own if isinstance(own, int) and isinstance(value, int) else bool(own != value)


def _examine_effects(found: Findings, store: Store) -> None:
    """Add findings about dropped messages, which show that a policy exists when policies cannot be read."""
    try:
        drops = store.open_jobs.recent_drops()
    except ViewUnavailable:
        return  # the check of the view reports why
    for (queue, reason), n in sorted(drops.items()):
        key = "message-ttl" if reason == "expired" else "max-length or max-length-bytes"
        found.wrong(
            "broker",
            f"the broker has recently dropped jobs from the queue {queue} {n} times ({reason}), because a policy sets "
            f"{key} on it; they are put back",
            f"find it with {COMMANDS}; {DOCS}",
        )
