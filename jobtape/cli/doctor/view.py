"""Checks the view: its database, its checkpoint, its projector and the subscriptions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.gates import examine_gates
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.view.store import Checkpoint, HistoryRange, NamedPosition, Store
from jobtape.view.subscribers.positions import SUBSCRIPTION

ABANDONED: Final = timedelta(days=7)
PLACED_LONG: Final = timedelta(seconds=60)
"""After that, the work of a job that has slots is on its queue, or lost, or waits in a worker."""
TIMERS_LATE: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What the view says about the work queues: those of unfinished jobs, those that are paused, and by queue one job,
    of how many, that has slots and was placed longer than ``PLACED_LONG`` ago.
    """

    queues: Collection[str] = ()
    paused: Collection[str] = ()
    with_slots: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def examine_view(found: Findings, store: Store) -> OpenWork:
    """Add findings about the view. Blocks."""
    try:
        checkpoint, fault = store.checkpoint(), store.fold_fault()
        queues = store.open_jobs.queues()
        earliest, dead = store.open_jobs.earliest_timed(), store.dead_messages.count()
        rules = RulesInForce.of(store.open_jobs.rules())
        with_slots = store.open_jobs.queued_with_slots(datetime.now(UTC) - PLACED_LONG)
        examine_gates(found, store, rules)
        positions, reach = store.positions.all(), store.committed.reach()
    except ViewUnavailable as error:
        found.wrong("view", str(error), "DATABASE_URL says where the view is; see docs/reference/databases.md")
        return OpenWork()
    found.fine("view", f"{store.url_for_messages} answers, and its tables have this version")
    _examine_checkpoint(found, checkpoint)
    if checkpoint is not None and fault is not None:
        what = f"the projector cannot fold the events after cursor {checkpoint.cursor}: {fault}"
        found.wrong("view", what, "correct the cause; the projector retries and then continues automatically")
    late = timedelta() if earliest is None else datetime.now(UTC) - earliest
    if late > TIMERS_LATE:
        found.wrong(
            "view",
            f"a delayed job, a retry or a redriven job has been due for {late.total_seconds():.0f} s, and its work is "
            "not on its queue",
            "the projector places it: see that it runs, and that the job's queue exists and is not full",
        )
    for queue in sorted(rules.paused_queues):
        found.note("workers", f"the queue {queue} is paused", f"`jobtape resume --queue {queue}` resumes it")
    for job_type in sorted(rules.paused_types):
        found.note("workers", f"the job type {job_type} is paused", f"`jobtape resume --type {job_type}` resumes it")
    if dead:
        found.note("view", f"{dead} messages on work queues were not jobs", "see `jobtape dead list`")
    if reach.horizon:
        found.note(
            "view",
            f"history is complete only after cursor {reach.horizon}: before it, jobs were removed "
            "(JOBTAPE_JOB_RETENTION), a gap was accepted, or the tape began later than the jobs",
            "see docs/how-to/replay.md",
        )
    for position in positions:
        _examine_position(found, position, reach)
    return OpenWork(queues, rules.paused_queues, with_slots)


def _examine_position(found: Findings, position: NamedPosition, reach: HistoryRange) -> None:
    name = position.name.removeprefix(SUBSCRIPTION)
    if position.cursor < reach.horizon:
        found.wrong(
            "view",
            f"the subscription {name} has missed events: its position is cursor {position.cursor}, and history is "
            f"complete only after {reach.horizon}",
            f"start it once with on_gap='skip', or remove it (`jobtape subscriptions remove {name}`)",
        )
    elif position.owner is None and position.idle > ABANDONED:
        found.note(
            "view",
            f"the subscription {name} has had no consumer for {position.idle.days} days",
            f"start it, or remove it (`jobtape subscriptions remove {name}`)",
        )


def _examine_checkpoint(found: Findings, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        found.wrong("view", "no projector was ever started on this database", "start `jobtape projector`")
        return
    if checkpoint.gap is not None:
        found.wrong("view", f"{checkpoint.gap.kind}: {checkpoint.gap.detail}", "see docs/how-to/gaps.md")
    if checkpoint.lease_left <= 0:
        found.wrong(
            "workers",
            "no projector runs, so the view does not change, and retries, delayed jobs, schedules, flows, and jobs "
            "with a limit or an ordering key wait",
            "start `jobtape projector`",
        )
    else:
        found.fine("workers", f"the projector {checkpoint.owner} has folded the tape up to cursor {checkpoint.cursor}")
