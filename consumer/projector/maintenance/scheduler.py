"""Submits the jobs of schedules at their ticks.

Theory of operation. A schedule is a rule in the view. Its latest tick is that of its newest job, whose id contains the
tick's time and is the same whichever projector submits it. So there is no other record of ticks: a projector that
becomes active first waits until everything that was published is folded, and then goes on after the newest job of each
schedule. Ticks only grow, also when the clock is set back. A tick that does nothing because the job of an earlier one
is still open is a job too, which is cancelled at once.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.tasks import wait_for_stop
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas import ids
from jobtape.schemas.events import JobEvent, submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.interventions import cancelled
from jobtape.schemas.job import FINAL, JobState
from jobtape.schemas.rules.rules import Rules
from jobtape.schemas.rules.schedule import SCHEDULE_LABEL, Schedule
from jobtape.view.store import Batch, JobQuery

log = logging.getLogger(__name__)

LONGEST_WAIT: Final = 60.0
"""Seconds until the clock is read again. It may be set."""
_OPEN: Final = tuple(state for state in JobState if state not in FINAL)


class Scheduler:
    """The schedules of the view, each with its latest tick."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._rules = Rules()
        self._latest: dict[str, datetime] = {}
        """By the name of the schedule."""
        self._found: set[str] = set()
        """The ids of the rules whose latest tick was found."""
        self._changed = asyncio.Event()

    def notify(self, batch: Batch) -> None:
        """Take over the schedules that the fold has committed."""
        for job in batch.jobs:
            if job.gates is None or not job.gates.rule:
                continue
            held = job.state is JobState.HELD
            if self._rules.add(job.id, job.type, job.payload or {}) if held else self._rules.remove(job.id):
                self._changed.set()

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable and TapeMissing."""
        self._latest.clear()
        self._found.clear()
        await self._leader.catch_up()
        for rule in await self._leader.call(self._leader.store.open_jobs.rules):
            self._rules.add(*rule)
        while True:
            self._changed.clear()
            pause = await self._submit_due()
            if not self._changed.is_set():
                await wait_for_stop(self._changed, pause)

    async def _submit_due(self) -> float:
        """Submit the jobs of all ticks that are due, and return the seconds until the next tick."""
        schedules = {job_id: each for job_id, each in self._rules.schedules.items() if not each.paused}
        await self._find_latest(schedules)
        now = datetime.now(UTC)
        due = [(job_id, each, each.due(self._latest[each.name], now)) for job_id, each in schedules.items()]
        due = [(job_id, each, ticks) for job_id, each, ticks in due if ticks]
        if any(each.overlap == "skip" for _, each, _ in due):
            await self._leader.catch_up()  # so that the job of the tick before is known
        events = [await self._events(job_id, each, tick) for job_id, each, ticks in due for tick in ticks]
        await asyncio.gather(*(self._publish(each) for each in events))
        for _, each, ticks in due:
            self._latest[each.name] = ticks[-1]
        now = datetime.now(UTC)
        following = (next(each.after(max(self._latest[each.name], now)), None) for each in schedules.values())
        waits = [(tick - now).total_seconds() for tick in following if tick is not None]
        return max(0.0, min([*waits, LONGEST_WAIT]))

    async def _events(self, rule_id: str, schedule: Schedule, tick: datetime) -> list[JobEvent]:
        skipped = schedule.overlap == "skip" and await self._has_open_job(schedule)
        job_id, source = schedule.job_id(tick), self._leader.topology.source
        cause = ids.run_fact(rule_id, 1, "submitted")
        order = schedule.order_for(skipped=skipped)
        event = submitted(job_id, order, source=source, time=datetime.now(UTC), causation_id=cause)
        if not skipped:
            return [event]
        log.info("the tick %s of the schedule %s is skipped: an earlier job is open", tick.isoformat(), schedule.name)
        return [event, cancelled(evolve(None, event), source=source, time=event.time, causation_id=event.id)]

    async def _has_open_job(self, schedule: Schedule) -> bool:
        query = JobQuery(labels=((SCHEDULE_LABEL, schedule.name),), states=_OPEN, limit=1)
        return bool(await self._leader.call(self._leader.store.list_jobs, query))

    async def _publish(self, events: list[JobEvent]) -> None:
        for event in events:
            await self._leader.publish(event)

    async def _find_latest(self, schedules: Mapping[str, Schedule]) -> None:
        """Find the latest tick of each rule that is new here: that of the newest job, but not before its submission."""
        for job_id in self._found & schedules.keys() ^ schedules.keys():
            name = schedules[job_id].name
            query = JobQuery(labels=((SCHEDULE_LABEL, name),), limit=1)
            newest = await self._leader.call(self._leader.store.list_jobs, query)
            found = [self._latest.get(name), ids.time_of(job_id), *(ids.time_of(each.id) for each in newest)]
            self._latest[name] = max(moment for moment in found if moment is not None)
            self._found.add(job_id)
