"""Prometheus metrics, read from the view and the broker for each scrape.

The counts of jobs are those of the view: exact, the same from each API process, and not lost in restarts. The metrics
that this process counts itself are added. When a part is not available, its samples are left out; the scrape never
fails. ``telemetry.metrics`` has the table of all metrics. Where OpenTelemetry is on, the same metrics are sent by
``telemetry.metric_sender``.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from jobtape.broker.declare import Depth
from jobtape.producer.live.listeners import KINDS, Listeners
from jobtape.producer.monitoring.health import OutboxState, PartStatus
from jobtape.producer.producer import Producer
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.queueing.lanes import base_of, lane_of
from jobtape.telemetry import instruments, metrics
from jobtape.view.jobs.statistics import JobCount
from jobtape.view.store import DueJob, RelayState, SeenWorker, Store
from jobtape.view.subscribers.webhooks import WebhookLag

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

T = TypeVar("T")


async def exposition(producer: Producer) -> bytes:
    """Return the text of a scrape, within two seconds."""
    return generate_latest(await _scrape(producer)) + instruments.exposition()


async def families(producer: Producer) -> list[Metric]:
    """Return the metrics of a scrape without those that each process counts itself, within two seconds."""
    return list((await _scrape(producer)).collect())


async def _scrape(producer: Producer) -> "_Scrape":
    health = producer.health
    read, store = health.read, health.store
    rows = asyncio.gather(
        _if_available(read(store.counts)),
        _if_available(read(_read_jobs, store)),
        _if_available(read(store.events_behind)),
        _if_available(read(store.worker_signs.all)),
        _if_available(read(store.relay.state)),
        _if_available(read(store.webhooks.lags, datetime.now(UTC))),
    )
    parts, depths, lag, timers, outbox, (counts, jobs, behind, workers, relay, webhooks) = await asyncio.gather(
        health.parts(),
        _if_available(health.watch.depths()),
        health.seconds_behind(),
        _if_available(health.seconds_timers_behind()),
        _if_available(health.outbox_state()),
        rows,
    )
    return _Scrape(
        parts, counts, jobs, depths, lag, behind, timers, relay, workers, webhooks, outbox, producer.listeners
    )


class _Jobs(NamedTuple):
    """``held``: by gate. ``oldest``: by queue."""

    counts: Sequence[JobCount]
    held: Mapping[str, int]
    oldest: Mapping[str, DueJob]


def _read_jobs(store: Store) -> _Jobs:
    counts = store.statistics.jobs()
    held = store.statistics.held()
    return _Jobs(counts, held, store.open_jobs.oldest(sorted({count.queue for count in counts}), datetime.now(UTC)))


async def _if_available(result: Awaitable[T]) -> T | None:
    try:
        return await result
    except JobtapeError:
        return None


@dataclass(frozen=True)
class _Scrape(Collector):
    """The metrics of one scrape; None stands for what is not available."""

    parts: dict[str, PartStatus]
    counts: dict[tuple[str, str], int] | None
    jobs: _Jobs | None
    depths: dict[str, Depth | None] | None
    lag: float | None
    behind: int | None
    timers: float | None
    relay: RelayState | None
    workers: list[SeenWorker] | None
    webhooks: list[WebhookLag] | None
    outbox: OutboxState | None
    listeners: Listeners

    def collect(self) -> Iterator[Metric]:
        yield metrics.UP.family({(name,): float(part.ready) for name, part in self.parts.items()})
        if self.counts is not None:
            yield metrics.EVENTS.family(dict(sorted(self.counts.items())))
        if self.jobs is not None:
            yield from _jobs(self.jobs)
        if self.depths is not None:
            known = {queue: depth for queue, depth in self.depths.items() if depth is not None}
            yield metrics.QUEUE_DEPTH.family({(queue,): depth.messages for queue, depth in known.items()})
            yield metrics.QUEUE_CONSUMERS.family({(queue,): depth.consumers for queue, depth in known.items()})
        if self.lag is not None:
            yield metrics.LAG.family(self.lag)
        if self.behind is not None:
            yield metrics.LAG_EVENTS.family(self.behind)
        if self.timers is not None:
            yield metrics.TIMERS.family(self.timers)
        if self.relay is not None:
            yield from _relay(self.relay)
        if self.workers is not None:
            yield from _workers(self.workers)
        if self.webhooks is not None:
            yield from _webhooks(self.webhooks)
        if self.outbox is not None:
            yield metrics.OUTBOX_DEPTH.family(self.outbox.depth)
            yield metrics.OUTBOX_OLDEST.family(self.outbox.oldest or 0.0)
            yield metrics.OUTBOX_REFUSED.family(self.outbox.refused)
        yield from _listeners(self.listeners)


def _jobs(jobs: _Jobs) -> Iterator[Metric]:
    numbers: Counter[tuple[str, str]] = Counter()
    for count in jobs.counts:
        numbers[count.type, count.state] += count.n
    yield metrics.JOBS.family(dict(sorted(numbers.items())))
    yield metrics.HELD.family({(gate,): n for gate, n in sorted(jobs.held.items())})
    now = datetime.now(UTC)
    ages = dict.fromkeys(sorted({count.queue for count in jobs.counts}), 0.0)
    ages |= {queue: max(0.0, (now - job.run_at).total_seconds()) for queue, job in jobs.oldest.items()}
    yield metrics.QUEUE_OLDEST.family({(base_of(queue), lane_of(queue)): age for queue, age in ages.items()})


def _relay(state: RelayState) -> Iterator[Metric]:
    yield metrics.RELAY_LAG.family(state.behind)
    yield metrics.RELAY_STALLED.family(float(state.fault is not None))
    yield metrics.RELAY_STALLS.family(state.stalls)
    yield metrics.RELAY_DELIVERED.family(state.delivered)
    yield metrics.RELAY_REFUSED.family(state.refused)


def _webhooks(lags: list[WebhookLag]) -> Iterator[Metric]:
    states = dict.fromkeys(("active", "failing", "disabled"), 0) | Counter(lag.webhook.state for lag in lags)
    yield metrics.WEBHOOKS.family({(state,): n for state, n in states.items()})
    late = {(lag.webhook.id,): lag.seconds for lag in lags if lag.seconds is not None}
    yield metrics.WEBHOOK_LAG.family(late)


def _workers(workers: list[SeenWorker]) -> Iterator[Metric]:
    states = dict.fromkeys(("alive", "draining", "silent"), 0) | Counter(worker.state for worker in workers)
    yield metrics.WORKERS.family({(state,): n for state, n in states.items()})
    alive = [worker.sign for worker in workers if worker.state == "alive"]
    used = sum(sign.running for sign in alive)
    free = max(0, sum(sign.slots for sign in alive) - used)
    yield metrics.WORKER_SLOTS.family({("used",): used, ("free",): free})


def _listeners(listeners: Listeners) -> Iterator[Metric]:
    yield metrics.LISTENERS.family({(kind,): listeners.now[kind] for kind in KINDS})
    delivered = {(kind,): listeners.delivered[kind] for kind in KINDS if kind != "wait"}
    yield metrics.DELIVERED_EVENTS.family(delivered)
    yield metrics.CATCH_UP_READS.family(listeners.pages)
