"""Puts rules in force and ends them: pauses, new values of limits, and schedules.

A rule is a job that is never run (``schemas.rules.rules``): it is in force from its submission until it is cancelled.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobtape.producer.service.errors import IdempotencyKeyReused, ScheduleChanged
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.service import JobService
from jobtape.producer.service.submission.order_check import names
from jobtape.producer.service.submission.submitter import publish_each
from jobtape.schemas.errors import SubmissionInvalid, UnknownJobType
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.job import Job
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.queueing.gates import Limit
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.schemas.rules.rules import LIMIT, PAUSE, SCHEDULE, Pause
from jobtape.schemas.rules.schedule import SCHEDULE_LABEL, Schedule
from jobtape.schemas.submission import Submission
from jobtape.schemas.topology import CANCEL_KEY

TRIES: Final = 3
"""How often a pause of a schedule is tried while others change the schedule."""


async def pause(service: JobService, wanted: Pause) -> Job:
    """Let no job of the queue or job type begin. Returns the rule; the one in force, if there is one.

    Raises SubmissionInvalid for an unknown queue, UnknownJobType, and what ``JobService.submit`` and ``job`` raise.
    """
    queues = {*queues_of(service.job_types.values())} - {BUILTIN_QUEUE}
    if wanted.queue is not None and wanted.queue not in queues:
        message = f"there is no queue {wanted.queue!r} here; known: {names(queues)}"
        raise SubmissionInvalid(message, [{"loc": ("queue",), "msg": message}])
    if wanted.type is not None and wanted.type not in service.job_types:
        raise UnknownJobType(f"there is no job type {wanted.type!r} here; known: {names(service.job_types)}")
    for rule in await _in_force(service, PAUSE):
        if Pause.model_validate(rule.payload) == wanted:
            return rule
    return await service.submit(Submission(type=PAUSE, payload=wanted.model_dump(exclude_none=True)))


async def resume(service: JobService, paused: Pause) -> list[str]:
    """End all pauses of the queue or job type, and return their ids. Raises what ``JobService.publish`` raises."""
    rules = await _in_force(service, PAUSE)
    return await _end(service, [rule for rule in rules if Pause.model_validate(rule.payload) == paused])


async def change_limit(service: JobService, limit: Limit) -> Job:
    """Give a limit other values, for all jobs from now on. Returns the rule. Raises what ``pause`` raises."""
    earlier = await _limits(service, limit.name, limit.key)
    rule = await service.submit(Submission(type=LIMIT, payload=limit.model_dump(exclude_none=True)))
    await _end(service, [each for each, old in earlier if (old.per is None) is (limit.per is None)])
    return rule


async def restore_limit(service: JobService, name: str, key: str) -> list[str]:
    """Let a limit have the values of the job types again. Returns the ids of the rules that were ended."""
    return await _end(service, [rule for rule, _ in await _limits(service, name, key)])


async def limits(service: JobService, *, committed: bool = False) -> list[tuple[Job, Limit]]:
    """Return the rules in force that changed a limit, with its new values, sorted by name and key.

    ``committed``: see ``JobService.rules``.
    """
    rules = await _in_force(service, LIMIT, committed=committed)
    found = [(rule, Limit.model_validate(rule.payload)) for rule in rules]
    return sorted(found, key=lambda each: (each[1].name, each[1].key))


async def schedules(
    service: JobService, name: str | None = None, *, committed: bool = False
) -> list[tuple[Job, Schedule]]:
    """Return the rules and schedules that are in force, sorted by name. ``name``: only that one.

    ``committed``: see ``JobService.rules``.
    """
    in_force = await _in_force(service, SCHEDULE, committed=committed)
    rules = [(rule, Schedule.model_validate(rule.payload)) for rule in in_force]
    found = [(rule, schedule) for rule, schedule in rules if name in (None, schedule.name)]
    return sorted(found, key=lambda each: each[1].name)


async def latest_jobs(service: JobService, names: Iterable[str]) -> dict[str, Job]:
    """Return the newest job of each schedule that has one, by the schedule's name."""
    return await service.read(service.store.search.newest_by_label, SCHEDULE_LABEL, list(names))


async def put_schedule(service: JobService, schedule: Schedule, replaces: Collection[str] | None = None) -> Job:
    """Put a schedule in force instead of the one with its name. Returns the rule; the one in force if it is the same.

    ``replaces``: the ids of rules, one of which must be in force for that name, or ``"*"`` for any. Of several calls
    that replace the same rule, one has success. Raises ScheduleChanged otherwise, and what ``pause`` raises.
    """
    earlier = await schedules(service, schedule.name)
    if len(earlier) == 1 and earlier[0][1] == schedule:
        return earlier[0][0]
    if replaces is None:
        rule = await _submit(service, schedule)
    else:
        rule = await _submit_instead(service, schedule, earlier[-1][0].id if earlier else None, replaces)
    await _end(service, [each for each, _ in earlier])
    return rule


async def set_paused(service: JobService, name: str, *, paused: bool) -> Job | None:
    """Pause the schedule ``name`` or let it go on. Returns the rule; None if there is no such schedule.

    A change of the schedule at the same time is kept. Raises ScheduleChanged if it is changed again and again, and
    what ``pause`` raises.
    """
    for left in reversed(range(TRIES)):
        found = await schedules(service, name)
        if not found:
            return None
        rule, schedule = found[-1]
        try:
            return await put_schedule(service, schedule.model_copy(update={"paused": paused}), {rule.id})
        except ScheduleChanged:
            if not left:
                raise
    raise AssertionError


async def _submit_instead(service: JobService, schedule: Schedule, now: str | None, replaces: Collection[str]) -> Job:
    """Submit a schedule instead of the rule with the id ``now``. See ``put_schedule``."""
    if now is None:
        raise ScheduleChanged(f"there is no schedule {schedule.name!r}: create it without If-Match")
    if now not in replaces and "*" not in replaces:
        raise ScheduleChanged(f"the schedule {schedule.name!r} has changed, it is the rule {now} now: read it again")
    try:  # the key is used once, whichever API process gets the request
        return await _submit(service, schedule, None if "*" in replaces else f"{SCHEDULE}/{schedule.name}/{now}")
    except IdempotencyKeyReused:
        raise ScheduleChanged(
            f"the schedule {schedule.name!r} was changed by another request at the same time: read it again"
        ) from None


async def _submit(service: JobService, schedule: Schedule, idempotency_key: str | None = None) -> Job:
    payload = schedule.model_dump(mode="json", exclude_none=True)
    return await service.submit(Submission(type=SCHEDULE, payload=payload), idempotency_key)


@dataclass(frozen=True, slots=True)
class SyncedSchedules:
    """The names of schedules by what ``sync_schedules`` did. ``refused``: made by hand or from other code."""

    created: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    refused: list[str]


async def sync_schedules(
    service: JobService, origin: str, wanted: Iterable[Schedule], *, dry_run: bool
) -> SyncedSchedules:
    """Put the ``wanted`` schedules in force, and end all others that came from ``origin``. Schedules that did not come
    from there are left as they are; one that is paused stays paused. ``dry_run``: change nothing, only say what.

    Raises what ``pause`` raises.
    """
    done = SyncedSchedules([], [], [], [], [])
    changes: list[tuple[Schedule | None, Job | None]] = []
    in_force = {schedule.name: (rule, schedule) for rule, schedule in await schedules(service)}
    for each in wanted:
        rule, now = in_force.pop(each.name, (None, None))
        new = each.model_copy(update={"origin": origin, "paused": now is not None and now.paused})
        if now is not None and now.origin != origin:
            done.refused.append(each.name)
        elif new == now:
            done.unchanged.append(each.name)
        else:
            (done.created if rule is None else done.changed).append(each.name)
            changes.append((new, rule))
    for name, (rule, schedule) in in_force.items():
        if schedule.origin == origin:
            done.removed.append(name)
            changes.append((None, rule))
    if not dry_run:
        await publish_each(changes, lambda change: _replace(service, *change))
    return done


async def _replace(service: JobService, new: Schedule | None, rule: Job | None) -> None:
    if new is not None:
        await _submit(service, new)
    if rule is not None:
        await _end(service, [rule])


async def backfill(service: JobService, schedule: Schedule, ticks: Iterable[datetime]) -> dict[datetime, Job | None]:
    """Submit the jobs of past ticks that have none. Returns the new job of each tick, None where there was one.

    The jobs have the ids that they would have had at their ticks, so a tick that is submitted twice is one job. When
    this returns, the view has the jobs: their ids are of the past, so a read would not wait for them. Raises
    what ``JobService.submit_order`` raises; repeat it then.
    """
    by_tick = {tick: schedule.job_id(tick) for tick in ticks}
    known = await service.existing(by_tick.values())
    done: dict[datetime, Job | None] = {}
    for tick, job_id in by_tick.items():
        done[tick] = None if job_id in known else await service.submit_order(schedule.order_for(), job_id)
    await service.existing(by_tick.values())
    return done


async def delete_schedule(service: JobService, name: str) -> list[str]:
    """End the schedule with this name. Returns the ids of the rules that were ended."""
    return await _end(service, [rule for rule, _ in await schedules(service, name)])


async def _limits(service: JobService, name: str, key: str) -> list[tuple[Job, Limit]]:
    return [(rule, limit) for rule, limit in await limits(service) if (limit.name, limit.key) == (name, key)]


async def _in_force(service: JobService, job_type: str, *, committed: bool = False) -> list[Job]:
    return [rule for rule in await service.rules(committed=committed) if rule.type == job_type]


async def _end(service: JobService, rules: list[Job]) -> list[str]:
    """End rules that were in force a moment ago. The end of a rule that has ended meanwhile changes nothing."""
    for rule in rules:
        await service.publish(cancelled(rule, source=service.topology.source, time=utc_now()), CANCEL_KEY)
    return [rule.id for rule in rules]
