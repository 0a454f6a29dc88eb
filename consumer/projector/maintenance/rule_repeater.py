"""Publishes the rules that are in force again, so that nothing forgets them.

Theory of operation. Workers read pauses from the stream of cancellations, which somebody may delete. So pauses are
published to it every few minutes.

A rule is in force for years, and retention drops its submission from the tape after weeks. So once a week the
submissions of all rules are published to the tape again, with the same ids and times. The fold, which knows them,
rejects them. Who has only the tape of the last month learns from it which rules are in force. If a rule ends while it
is published again, its end is published again too: otherwise only the submission would be left of it at last.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.publisher import ExchangePublisher
from jobtape.broker.tasks import run_all
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.events import Cancelled, Submitted, encode, submitted
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.job import Job
from jobtape.schemas.queueing.gates import Gate
from jobtape.schemas.rules.rules import PAUSE
from jobtape.schemas.topology import CANCEL_KEY

log = logging.getLogger(__name__)

EVERY: Final = 600.0
"""Seconds. The stream of cancellations keeps messages for weeks, so this is about a deleted stream."""
TAPE_EVERY: Final = 7 * 86_400.0
"""Seconds between two times at which the rules are published to the tape. It keeps events for 30 days by default."""
NOTE: Final[Gate] = ("rules on the tape", "")
"""Under this name the view notes when that was last. No gate has it."""
PAGE: Final = 100


class RuleRepeater:
    """A worker takes a repeated pause for the one that it knows, and ignores one that was cancelled."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._publisher = ExchangePublisher(active.publisher.link, active.topology.events.name)

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable, TapeMissing and NotActive."""
        while True:
            await self._active.publisher.link.connection()
            await self._repeat_pauses()
            noted = await self._active.call(self._active.store.rates.latest_of, NOTE)
            if noted is None or abs(time.time() - noted) >= TAPE_EVERY:
                await self._repeat_on_the_tape()
                await self._active.call(self._active.store.rates.note, {NOTE: time.time()})
            await asyncio.sleep(EVERY)

    async def _repeat_pauses(self) -> None:
        for pause in await self._rules(PAUSE):
            await self._publisher.publish(encode(self._submission(pause)), CANCEL_KEY)

    async def _repeat_on_the_tape(self) -> None:
        await self._active.catch_up()
        rules = await self._rules()
        for start in range(0, len(rules), PAGE):
            page = rules[start : start + PAGE]
            await run_all(self._active.publish(self._submission(each)) for each in page)
        await self._active.catch_up()
        ended = [each for each in await self._jobs([rule.id for rule in rules]) if each.final]
        await run_all(self._active.publish(self._end(each)) for each in ended)
        if rules:
            log.info("%d rules in force were published to the tape again", len(rules) - len(ended))

    async def _rules(self, job_type: str | None = None) -> list[Job]:
        """Return the rules in force, in their order. ``job_type``: only those of this type."""
        rules = await self._active.call(self._active.store.open_jobs.rules)
        wanted = [job_id for job_id, its_type, _ in rules if job_type in (None, its_type)]
        return [job for job in await self._jobs(wanted) if not job.final and job.order is not None]

    async def _jobs(self, job_ids: Sequence[str]) -> list[Job]:
        found = await self._active.call(self._active.store.jobs, job_ids)
        return [found[job_id] for job_id in job_ids if job_id in found]

    def _submission(self, rule: Job) -> Submitted:
        assert rule.order is not None
        time = rule.submitted_at or datetime.now(UTC)
        return submitted(rule.id, rule.order, source=self._active.topology.source, time=time)

    def _end(self, rule: Job) -> Cancelled:
        time = rule.finished_at or datetime.now(UTC)
        return cancelled(rule, source=self._active.topology.source, time=time)
