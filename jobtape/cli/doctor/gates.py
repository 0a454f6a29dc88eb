"""Checks for jobs that have waited long for their ordering key, their limits or their other gates."""

from datetime import UTC, datetime, timedelta
from typing import Final

from jobtape.cli.doctor.findings import Findings
from jobtape.schemas.job import JobState
from jobtape.schemas.keyed_runs import GatedRun
from jobtape.schemas.queueing.gates import Gate
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.view.store import HeldJob, Store

HELD_LONG: Final = timedelta(minutes=10)
MOST: Final = 5
"""Groups of jobs that are named, those that have waited longest."""
_FIRST: Final = (-1, "")


def examine_gates(found: Findings, store: Store, rules: RulesInForce, now: datetime | None = None) -> None:
    """Add a note for each group of jobs of which one has been due for ``HELD_LONG`` and is held. Says what it waits
    for, and which job keeps it from that. Blocks. Raises ViewUnavailable.
    """
    now = now or datetime.now(UTC)
    groups = store.open_jobs.held_before(now - HELD_LONG, MOST)
    if not groups:
        return
    placed = store.open_jobs.with_slots()
    for group, first in store.open_jobs.held(dict.fromkeys(groups, _FIRST), 1).items():
        if not first or _is_quiet(first[0], now):
            continue
        job, (n, since) = first[0], groups[group]
        what, todo = _reason(job, placed, rules, now)
        others = "" if n == 1 else f", and {n - 1} more with the same gates"
        found.note(
            "view",
            f"the job {job.id} has waited for {(now - since).total_seconds():.0f} s{others}: "
            f"{', '.join(job.gates.texts())}; {what}",
            todo,
        )


def _is_quiet(job: HeldJob, now: datetime) -> bool:
    """Return whether a job with a debounce key has not waited long after its time."""
    debounce = job.gates.debounce
    return debounce is not None and job.run_at + timedelta(seconds=debounce.seconds) > now - HELD_LONG


def _reason(job: HeldJob, placed: list[GatedRun], rules: RulesInForce, now: datetime) -> tuple[str, str]:
    """Return why a job waits, and what to do."""
    if job.queue in rules.paused_queues:
        return f"the queue {job.queue} is paused", f"`jobtape resume --queue {job.queue}`"
    if job.type in rules.paused_types:
        return f"the job type {job.type} is paused", f"`jobtape resume --type {job.type}`"
    if job.run_at > now:
        when = job.run_at.isoformat(timespec="seconds")
        return f"it is due at {when}, and later jobs wait for it", f"`jobtape cancel {job.id}` lets them go on"
    wanted = {*job.gates.slots()}
    holders = [each for each in placed if wanted & {*_slots_of(each)}]
    if not holders:
        return (
            "no job keeps it from that",
            "a rate opens with time; see also that its queue exists",
        )
    first, more = holders[0].run.id, "" if len(holders) == 1 else f" and {len(holders) - 1} others"
    if holders[0].state is JobState.FAILED:
        return (
            f"the job {first} has failed and holds its key",
            f"`jobtape redrive {first}` or `jobtape release {first}`",
        )
    doing = "waits for its follow-ups" if holders[0].awaits_follow_ups else holders[0].state
    return (
        f"the job {first} ({doing}){more} has it",
        f"see `jobtape show {first}`; `jobtape cancel {first}` frees it, and `jobtape limit` changes a limit at once",
    )


def _slots_of(run: GatedRun) -> tuple[Gate, ...]:
    return run.gates.slots(ended=run.state is JobState.FAILED, awaits_follow_ups=run.awaits_follow_ups)
