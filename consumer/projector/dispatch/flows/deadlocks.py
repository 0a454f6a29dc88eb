"""Ends follow-ups that can never begin, because jobs wait for each other: see ``schemas.flows.deadlock``.

That a follow-up needs a key of a job above it is refused when it is submitted (``Payloads.make``). What needs two jobs,
each of which waits for a follow-up of the other, shows only when both wait, so it is looked for from time to time.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.flows import outcomes
from jobtape.schemas.flows.deadlock import Wait, deadlock
from jobtape.schemas.flows.flow import waits_for
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.queueing.gates import Gate, key_group

log = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two searches."""


class Deadlocks:
    """The service that ends one follow-up of each circle of jobs that wait for each other."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, TapeMissing and NotActive."""
        while True:
            await self._end_one()
            await asyncio.sleep(EVERY)

    async def _end_one(self) -> None:
        holders = await self._holders()
        if len(set(holders.values())) < 2:
            return
        waits = await self._waits(holders)
        if (found := deadlock(waits)) is None:
            return
        wait, circle = found
        job = await self._active.call(self._active.store.job, wait.job)
        if job is None or job.state is not JobState.HELD or job.awaits_follow_ups:
            return
        kind = "unique key" if wait.gate[0] else "ordering key"
        why = (
            f"it needs the {kind} {wait.gate[1]!r} of the job {wait.holder}, which keeps the key until its follow-ups "
            f"have ended, and these jobs wait for each other: {', '.join(circle)}. Give one of them another key"
        )
        log.warning("the follow-up %s fails: %s", job.id, why)
        await self._active.publish(
            outcomes.deadlocked(job, why, source=self._active.topology.source, time=datetime.now(UTC))
        )

    async def _holders(self) -> dict[Gate, str]:
        """Return by gate the job that keeps it until its follow-ups have ended."""
        runs = await self._active.call(self._active.store.open_jobs.awaiting_follow_ups)
        return {gate: run.run.id for run in runs for gate in run.gates.slots(awaits_follow_ups=True)}

    async def _waits(self, holders: Mapping[Gate, str]) -> list[Wait]:
        groups = [key_group(key) for name, key in holders if not name]
        has_unique = any(name for name, _ in holders)
        held = await self._active.call(self._active.store.open_jobs.held_below_others, groups, has_unique)
        jobs = await self._active.call(self._active.store.jobs, [run.run.id for run in held])
        waits: list[Wait] = []
        for run in held:
            unique = run.gates.unique
            # The others end as duplicates instead of waiting.
            not_awaited = None if unique is None or unique.conflict == "replace" else unique.gate
            wanted = [gate for gate in run.gates.slots() if gate in holders and gate != not_awaited]
            if wanted and run.run.id in jobs:
                waiting = tuple(await self._waiting(jobs[run.run.id]))
                waits += [Wait(run.run.id, gate, holders[gate], waiting) for gate in wanted]
        return waits

    async def _waiting(self, job: Job) -> list[str]:
        """Return the jobs that wait for the end of ``job``, directly or not, and that keep their keys meanwhile."""
        found: list[str] = []
        while job.flow is not None:
            above = await self._active.call(self._active.store.job, job.flow)
            if above is None or above.final or not waits_for(above, job):
                break
            if above.awaits_follow_ups:
                found.append(above.id)
            job = above
        return found
