"""Makes deliveries of committed events: for each endpoint of a webhook, a job for each event that passes its filter.

Theory of operation. An endpoint has a cursor, up to which its events have become jobs. This service reads the history
after it, submits the jobs, and then moves the cursor. The id of a job follows from endpoint and event, so a projector
that was killed in between submits nothing twice. Endpoints whose cursors are close together share a page.

An endpoint has at most ``MOST_OPEN`` deliveries that wait or run, and while its attempts fail it gets one new delivery
in ``PROBE_EVERY`` seconds. What it cannot take waits as history behind its cursor, which costs nothing, and no endpoint
that hangs takes the workers of the others. A delivery that waits for its next attempt does not count.

Events of deliveries are never delivered, and imported ones were those of another installation.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from jobtape.broker.tasks import run_all, wait_for_stop
from jobtape.consumer.projector.active_projector import ActiveProjector, NotActive
from jobtape.consumer.projector.recent_events import RecentEvents
from jobtape.process import clock
from jobtape.schemas.events import JobEvent, submitted
from jobtape.schemas.events.interventions import redriven
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import ENDINGS, Job, JobState
from jobtape.schemas.webhooks.delivery import WEBHOOK, WEBHOOK_LABEL, Delivery, delivery_id, delivery_order, event_body
from jobtape.view.store import CommittedEvent, CommittedPage, FoldedBatch, Webhook

log = logging.getLogger(__name__)

WINDOW: Final = 200
"""Events that are read at once."""
MOST_OPEN: Final = 25
PROBE_EVERY: Final = 30.0
"""Seconds."""
POLL: Final = 1.0
"""Seconds between two reads of the endpoints, and between two writes of cursors that have passed no event of theirs."""
_WAITING: Final = frozenset({JobState.SCHEDULED, JobState.HELD, JobState.QUEUED, JobState.RUNNING})
_ATTEMPT_ENDED: Final = {
    True: frozenset({JobState.RETRYING, JobState.FAILED}),
    False: frozenset({JobState.SUCCEEDED}),
}
"""The states of a delivery that show that its endpoint has changed: under True those of one that was well and fails,
under False those of one that has failed and is well again."""
_ENDED_BADLY: Final = frozenset({JobState.FAILED, JobState.CANCELLED})


class WebhookDispatcher:
    """The service that submits deliveries."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._webhooks: dict[str, Webhook] = {}
        self._cursors: dict[str, int] = {}
        """Where each endpoint is, which may be ahead of what is saved."""
        self._unsaved: set[str] = set()
        self._recent = RecentEvents(frozenset())
        self._open: defaultdict[str, set[str]] = defaultdict(set)
        """The deliveries of each endpoint that wait or run."""
        self._endpoint_of: dict[str, str] = {}
        """The same, by delivery."""
        self._noted: set[str] | None = None
        """While the deliveries are read: those that were committed meanwhile."""
        self._probed: dict[str, float] = {}
        """When a failing endpoint got its last delivery, by the event loop's clock."""
        self._reload_at = 0.0
        """When to read the endpoints, by the event loop's clock."""
        self._changed = asyncio.Event()

    def notify(self, batch: FoldedBatch, cursor: int) -> None:
        """Take over what the fold has committed, up to ``cursor``."""
        for job in batch.jobs:
            if job.type == WEBHOOK:
                self._note(job)
        if self._webhooks:
            self._recent.add(batch, cursor)
            self._changed.set()

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, NotActive, BrokerUnavailable and TapeMissing."""
        self._webhooks = {}
        self._unsaved.clear()
        self._open.clear()
        self._endpoint_of.clear()
        # What was submitted before is then in the view.
        await self._active.catch_up()
        self._noted = set()
        for job_id, endpoint_id in await self._active.call(self._active.store.webhooks.waiting_deliveries):
            if job_id not in self._noted:
                self._add(job_id, endpoint_id)
        self._noted = None
        clock = asyncio.get_running_loop().time
        self._reload_at = 0.0
        while True:
            self._changed.clear()
            if clock() >= self._reload_at:
                self._reload_at = clock() + POLL
                await self._save()
                await self._reload()
            more = await self._submit_next(clock())
            if not more:
                await wait_for_stop(self._changed, max(0.0, self._reload_at - clock()))

    def _note(self, job: Job) -> None:
        if self._noted is not None:
            self._noted.add(job.id)
        endpoint_id = (job.labels or {}).get(WEBHOOK_LABEL, "")
        webhook = self._webhooks.get(endpoint_id)
        if webhook is not None and job.state in _ATTEMPT_ENDED[webhook.failing_since is None]:
            self._reload_at = 0.0  # the attempt has written to the endpoint before it ended
        if job.state in _WAITING and not job.imported and endpoint_id:
            self._add(job.id, endpoint_id)
        elif (known := self._endpoint_of.pop(job.id, None)) is not None:
            self._open[known].discard(job.id)

    def _add(self, job_id: str, endpoint_id: str) -> None:
        self._endpoint_of[job_id] = endpoint_id
        self._open[endpoint_id].add(job_id)

    async def _reload(self) -> None:
        """Read the endpoints, with what users have changed."""
        store = self._active.store
        found = {each.id: each for each in await self._active.call(store.webhooks.enabled)}
        for webhook_id, webhook in found.items():
            known = self._webhooks.get(webhook_id)
            if known is None or known.revision != webhook.revision:
                self._cursors[webhook_id] = webhook.cursor
                self._unsaved.discard(webhook_id)
        names = frozenset[str]().union(*(_names(each) for each in found.values()))
        if names != self._recent.names or not self._webhooks:
            self._recent = RecentEvents(names)
        self._webhooks = found

    async def _submit_next(self, now: float) -> bool:
        """Submit deliveries of the next events. Return whether more may follow at once."""
        rooms = {each.id: room for each in self._webhooks.values() if (room := self._room(each, now)) > 0}
        left = sorted(rooms, key=self._cursors.__getitem__)
        more = False
        while left:
            start = self._cursors[left[0]]
            page = await self._page(start)
            near = [each for each in left if self._cursors[each] <= page.cursor] or left[:1]
            left = [each for each in left if each not in near]
            more |= page.full
            for webhook_id in near:
                await self._submit(self._webhooks[webhook_id], page, rooms[webhook_id], now)
        return more

    def _room(self, webhook: Webhook, now: float) -> int:
        if webhook.failing_since is None:
            self._probed.pop(webhook.id, None)
            return MOST_OPEN - len(self._open[webhook.id])
        # A projector that becomes active does not know of the last probe, so it makes one.
        return 1 if now >= self._probed.get(webhook.id, 0.0) + PROBE_EVERY else 0

    async def _page(self, cursor: int) -> CommittedPage:
        if (page := self._recent.page(cursor, WINDOW)) is not None:
            return page
        head = self._recent.head
        selection = Selection(events=frozenset(self._recent.names))
        page = await self._active.call(self._active.store.committed.page, cursor, WINDOW, selection)
        # A page that is not full has everything that was committed before it was read.
        return page if page.full else replace(page, cursor=max(page.cursor, head))

    async def _submit(self, webhook: Webhook, page: CommittedPage, room: int, now: float) -> None:
        """Submit up to ``room`` deliveries of the events of a page, and move the endpoint's cursor behind them."""
        selection = replace(webhook.filter.selection(), events=_names(webhook))
        after = self._cursors[webhook.id]
        rows = [
            row
            for row in page.rows
            if row.cursor > after and row.job_type != WEBHOOK and row.wanted_by(selection) and not row.imported
        ]
        events, passed = await self._events(webhook, rows, room)
        if events and webhook.failing_since is not None:
            self._probed[webhook.id] = now
        for event in events:
            self._add(event.subject, webhook.id)
        await run_all(self._active.publish(event) for event in events)
        cursor = page.cursor if passed == len(rows) else rows[passed - 1].cursor if passed else after
        if cursor > after:
            self._cursors[webhook.id] = cursor
            self._unsaved.add(webhook.id)
        if events:
            await self._save()

    async def _events(self, webhook: Webhook, rows: Sequence[CommittedEvent], room: int) -> tuple[list[JobEvent], int]:
        """Return up to ``room`` events that begin deliveries, and the number of ``rows`` for which that is all."""
        ids = {row.cursor: delivery_id(webhook.id, row.event_id, row.time) for row in rows}
        store, source = self._active.store, self._active.topology.source
        known = await self._active.call(store.jobs, [*ids.values()]) if ids else {}
        gone: Collection[str] = await self._active.call(store.retention.gone, [*ids.values()]) if ids else ()
        events: list[JobEvent] = []
        for n, row in enumerate(rows):
            job_id, time = ids[row.cursor], clock.now()
            job = known.get(job_id)
            again = job is not None and row.cursor <= webhook.replay_to and job.state in _ENDED_BADLY
            if job_id in gone or (job is not None and not again):
                continue
            if len(events) == room:
                return events, n
            if job is not None:
                events.append(redriven(job, source=source, time=time, causation_id=row.event_id))
            else:
                order = delivery_order(_delivery(webhook, row))
                stamp: dict[str, Any] = {"source": source, "time": time, "traceparent": row.traceparent}
                events.append(submitted(job_id, order, causation_id=row.event_id, **stamp))
        return events, len(rows)

    async def _save(self) -> None:
        moved = {
            each: (self._webhooks[each].revision, self._cursors[each])
            for each in self._unsaved
            if each in self._webhooks
        }
        self._unsaved.clear()
        if moved and not await self._active.call(self._active.store.webhooks.move, self._active.owner, moved):
            raise NotActive


def _names(webhook: Webhook) -> frozenset[str]:
    """Return the names of the events that an endpoint gets: without a choice, the final ones."""
    return frozenset(webhook.filter.events or ENDINGS)


def _delivery(webhook: Webhook, row: CommittedEvent) -> Delivery:
    body = event_body(
        event_id=row.event_id,
        name=row.name,
        time=row.time,
        cursor=row.cursor,
        job_id=row.job_id,
        job_type=row.job_type,
        state=row.state.value,
    )
    return Delivery(endpoint=webhook.id, body=body, cursor=row.cursor if webhook.body == "full" else None)
