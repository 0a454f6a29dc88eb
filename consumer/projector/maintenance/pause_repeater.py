"""Publishes the pauses that are in force again and again to the stream of cancellations, from which workers read them.

The stream keeps its messages for a limited time, and somebody may delete it; a pause stays in force until it is ended.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.publisher import ExchangePublisher
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.events import encode, submitted
from jobtape.schemas.rules.rules import PAUSE

EVERY: Final = 600.0
"""Seconds. The stream keeps messages for weeks, so this is about a deleted stream."""


class PauseRepeater:
    """A worker takes a repeated pause for the one that it knows, and ignores one that was cancelled."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._publisher = ExchangePublisher(active.publisher.link, "")

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable and BrokerUnavailable."""
        while True:
            await self._active.publisher.link.connection()
            await self._repeat()
            await asyncio.sleep(EVERY)

    async def _repeat(self) -> None:
        store, topology = self._active.store, self._active.topology
        rules = await self._active.call(store.open_jobs.rules)
        pauses = [job_id for job_id, job_type, _ in rules if job_type == PAUSE]
        jobs = await self._active.call(store.jobs, pauses)
        for job_id in pauses:
            job = jobs.get(job_id)
            if job is not None and not job.final and job.order is not None:
                time = job.submitted_at or datetime.now(UTC)
                event = submitted(job_id, job.order, source=topology.source, time=time)
                await self._publisher.publish(encode(event), topology.cancels.name)
