"""Submits the jobs of schedules at their ticks.

Theory of operation. A schedule is a rule in the view. Its latest tick is that of its newest job, whose id contains the
tick's time and is the same whichever projector submits it. So there is no other record of ticks: a projector that
becomes active first waits until everything that was published is folded, and then goes on after the newest job of each
schedule. Ticks only grow, also when the clock is set back. A tick that does nothing because the job of an earlier one
is still open is a job too, which is cancelled at once.
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from jobtape.broker.tasks import run_all, wait_for_stop
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.process import clock
from jobtape.schemas import ids
from jobtape.schemas.events import Submitted, submitted
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import FINAL, Job, JobState
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.schemas.rules.schedule import SCHEDULE_LABEL, Schedule
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import FoldedBatch, JobQuery

log = logging.getLogger(__name__)

LONGEST_WAIT: Final = 60.0
"""Seconds until the clock is read again. It may be set."""
PAGE: Final = 50
MOST_CANCELLED: Final = 100
"""Open jobs of a schedule that one tick cancels. There are more only after a backfill or triggers."""
PAGES: Final = 20
"""The newest jobs of a schedule that are looked at to find its latest tick."""
_MOST_OPEN: Final = {"skip": 0, "queue_one": 1}
"""By overlap: how many open jobs of a schedule let a tick have one too."""
_OPEN: Final = tuple(state for state in JobState if state not in FINAL)


class Scheduler:
    """The schedules of the view, each with its latest tick."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._rules = RulesInForce()
        self._latest: dict[str, datetime] = {}
        """By the name of the schedule."""
        self._found: set[str] = set()
        """The ids of the rules whose latest tick was found."""
        self._changed = asyncio.Event()
        self._next_tick = math.inf
        """In seconds since 1970."""
        self._waiting = False
        self._missed: list[Job] | None = None
        """While the view is being read: the rules that were committed meanwhile."""

    def notify(self, batch: FoldedBatch) -> None:
        """Take over the schedules that the fold has committed."""
        rules = [job for job in batch.jobs if job.gates is not None and job.gates.rule]
        if self._missed is not None:
            self._missed += rules
            return
        for rule in rules:
            if self._apply(rule):
                self._changed.set()

    def next_at(self) -> float:
        """Return when the next tick is, in seconds since 1970; 0 while one is being done."""
        return self._next_tick if self._waiting and not self._changed.is_set() else 0.0

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable and TapeMissing."""
        self._latest.clear()
        self._found.clear()
        self._missed = []
        self._waiting = False
        await self._active.catch_up()
        self._rules = RulesInForce.of(await self._active.call(self._active.store.open_jobs.rules))
        missed, self._missed = self._missed, None
        for rule in missed:
            self._apply(rule)
        while True:
            self._changed.clear()
            pause = await self._submit_due()
            self._waiting = True
            if not self._changed.is_set():
                await wait_for_stop(self._changed, pause)
            self._waiting = False

    def _apply(self, rule: Job) -> bool:
        in_force = rule.state is JobState.HELD and not rule.imported
        return self._rules.add(rule.id, rule.type, rule.payload or {}) if in_force else self._rules.remove(rule.id)

    async def _submit_due(self) -> float:
        """Submit the jobs of all ticks that are due, and return the seconds until the next tick."""
        schedules = {job_id: each for job_id, each in self._rules.schedules.items() if not each.paused}
        await self._find_latest(schedules)
        now = clock.now()
        due = [(job_id, each, each.due(self._latest[each.name], now)) for job_id, each in schedules.items()]
        due = [(job_id, each, ticks) for job_id, each, ticks in due if ticks]
        if any(each.overlap in ("cancel", *_MOST_OPEN) for _, each, _ in due):
            await self._active.catch_up()  # so that the job of the tick before is known
        await run_all(self._submit(*each) for each in due)
        now = clock.now()
        following = (next(each.after(max(self._latest[each.name], now)), None) for each in schedules.values())
        self._next_tick = min((tick.timestamp() for tick in following if tick is not None), default=math.inf)
        return max(0.0, min(self._next_tick - now.timestamp(), LONGEST_WAIT))

    async def _submit(self, rule_id: str, schedule: Schedule, ticks: Sequence[datetime]) -> None:
        cause, source = ids.run_event_id(rule_id, 1, Submitted.name), self._active.topology.source
        submitted_now = 0
        most = _MOST_OPEN.get(schedule.overlap)
        for tick in ticks:
            job_id, time = schedule.job_id(tick), clock.now()
            skipped = most is not None and (
                submitted_now + len(await self._open_jobs(schedule, job_id, most + 1)) > most
            )
            submitted_now += not skipped
            event = submitted(job_id, schedule.order_for(skipped=skipped), source=source, time=time, causation_id=cause)
            if skipped:
                log.info("the tick %s of the schedule %s is skipped: an earlier job is open", tick, schedule.name)
                # Before its submission: a job whose run has ended is not held when its order arrives.
                end = cancelled(evolve(None, event), source=source, time=time, causation_id=event.id)
                await self._active.publish(end, (CANCEL_KEY,))
            elif schedule.overlap == "cancel":
                for job in await self._open_jobs(schedule, job_id, MOST_CANCELLED):
                    end = cancelled(job, source=source, time=time, causation_id=event.id)
                    await self._active.publish(end, (CANCEL_KEY,))
            await self._active.publish(event)
            self._latest[schedule.name] = tick

    async def _open_jobs(self, schedule: Schedule, but: str, most: int) -> list[Job]:
        """Return at most ``most`` open jobs of a schedule besides the one with the id ``but``."""
        query = JobQuery(labels=((SCHEDULE_LABEL, schedule.name),), states=_OPEN, limit=most + 1, imported=False)
        found = await self._active.call(self._active.store.list_jobs, query)
        return [job for job in found if job.id != but][:most]

    async def _find_latest(self, schedules: Mapping[str, Schedule]) -> None:
        """Find the latest tick of each rule that is new here: that of the newest job, but not before its submission."""
        for job_id in schedules.keys() - self._found:
            schedule = schedules[job_id]
            found = [self._latest.get(schedule.name), ids.time_of(job_id), await self._newest_tick(schedule)]
            self._latest[schedule.name] = max(moment for moment in found if moment is not None)
            self._found.add(job_id)

    async def _newest_tick(self, schedule: Schedule) -> datetime | None:
        """Return the tick of the newest job that has one. Jobs that were triggered have none."""
        before: str | None = None
        for _ in range(PAGES):
            query = JobQuery(labels=((SCHEDULE_LABEL, schedule.name),), before=before, limit=PAGE)
            page = await self._active.call(self._active.store.list_jobs, query)
            for job in page:
                tick = ids.time_of(job.id)
                if tick is not None and schedule.job_id(tick) == job.id:
                    return tick
            if len(page) < PAGE:
                break
            before = page[-1].id
        return None
