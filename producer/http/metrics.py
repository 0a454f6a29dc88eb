"""Prometheus metrics, read from the view and the broker for each scrape.

This process keeps no counters of jobs. The counts in the view are exact, survive restarts, and are the same from each
API process. Only the metrics of listeners are about this process. When a part is not available, its samples are left
out; the scrape never fails.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from jobtape.broker.declare import Depth
from jobtape.producer.live.listeners import KINDS, Listeners
from jobtape.producer.monitoring.health import OutboxState, PartStatus
from jobtape.producer.producer import Producer
from jobtape.schemas.errors import JobtapeError
from jobtape.view.statistics import JobCount
from jobtape.view.store import RelayState, SeenWorker
from jobtape.view.subscribers.webhooks import WebhookLag

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

T = TypeVar("T")


async def exposition(producer: Producer) -> bytes:
    """Return the text of a scrape, within two seconds."""
    health = producer.health
    read, store = health.read, health.store
    rows = asyncio.gather(
        _if_available(read(store.counts)),
        _if_available(read(store.statistics.jobs)),
        _if_available(read(store.worker_signs.all)),
        _if_available(read(store.relay.state)),
        _if_available(read(store.webhooks.lags, datetime.now(UTC))),
    )
    parts, depths, lag, timers, outbox, (counts, jobs, workers, relay, webhooks) = await asyncio.gather(
        health.parts(),
        _if_available(health.watch.depths()),
        health.seconds_behind(),
        _if_available(health.seconds_timers_behind()),
        _if_available(health.outbox_state()),
        rows,
    )
    scrape = _Scrape(parts, counts, jobs, depths, lag, timers, relay, workers, webhooks, outbox, producer.listeners)
    return generate_latest(scrape)


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
    jobs: Sequence[JobCount] | None
    depths: dict[str, Depth | None] | None
    lag: float | None
    timers: float | None
    relay: RelayState | None
    workers: list[SeenWorker] | None
    webhooks: list[WebhookLag] | None
    outbox: OutboxState | None
    listeners: Listeners

    def collect(self) -> Iterator[Metric]:
        ready = {name: float(part.ready) for name, part in self.parts.items()}
        yield _gauges("jobtape_up", "Whether a part is ready (see /health/ready for why not).", "part", ready)
        if self.counts is not None:
            events = CounterMetricFamily(
                "jobtape_events",
                "Events that changed a job: accepted jobs are event=submitted, outcomes succeeded, failed, cancelled.",
                labels=["job_type", "event"],
            )
            for (job_type, event), count in sorted(self.counts.items()):
                events.add_metric([job_type, event], count)
            yield events
        if self.jobs is not None:
            yield _jobs(self.jobs)
        if self.depths is not None:
            known = {queue: depth for queue, depth in self.depths.items() if depth is not None}
            waiting = {queue: depth.messages for queue, depth in known.items()}
            consumers = {queue: depth.consumers for queue, depth in known.items()}
            yield _gauges("jobtape_queue_depth", "Jobs that wait for a worker.", "queue", waiting)
            yield _gauges("jobtape_queue_consumers", "Workers that consume the queue.", "queue", consumers)
        if self.lag is not None:
            what = "Seconds that an event published now takes to reach the view."
            yield GaugeMetricFamily("jobtape_projector_lag_seconds", what, value=self.lag)
        if self.timers is not None:
            what = "Seconds for which the earliest delayed job or retry has been due without being placed on its queue."
            yield GaugeMetricFamily("jobtape_timers_behind_seconds", what, value=self.timers)
        if self.relay is not None:
            yield from _relay(self.relay)
        if self.workers is not None:
            yield from _workers(self.workers)
        if self.webhooks is not None:
            yield from _webhooks(self.webhooks)
        if self.outbox is not None:
            yield from _outbox(self.outbox)
        yield from _listeners(self.listeners)


def _gauges(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _jobs(counts: Sequence[JobCount]) -> Metric:
    jobs = GaugeMetricFamily("jobtape_jobs", "Jobs in the view.", labels=["job_type", "state"])
    numbers: Counter[tuple[str, str]] = Counter()
    for count in counts:
        numbers[count.type, count.state] += count.n
    for labels, n in sorted(numbers.items()):
        jobs.add_metric(labels, n)
    return jobs


def _relay(state: RelayState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "jobtape_relay_lag_seconds", "Age in seconds of the oldest undelivered event.", value=state.behind
    )
    yield GaugeMetricFamily(
        "jobtape_relay_stalled", "1 while the broker does not confirm events.", value=float(state.fault is not None)
    )
    yield CounterMetricFamily("jobtape_relay_stalls", "How often the relay stalled.", value=state.stalls)
    yield CounterMetricFamily("jobtape_relay_delivered", "Events delivered and confirmed.", value=state.delivered)
    yield CounterMetricFamily("jobtape_relay_refused", "Events that a full queue refused.", value=state.refused)


def _outbox(state: OutboxState) -> Iterator[Metric]:
    yield GaugeMetricFamily("jobtape_outbox_depth", "Jobs that wait in the outbox, 100000 at most.", value=state.depth)
    what = "Seconds for which the first job of the outbox has waited."
    yield GaugeMetricFamily("jobtape_outbox_oldest_seconds", what, value=state.oldest or 0.0)
    what = "Jobs of the outbox that cannot be published (see `jobtape outbox --list`)."
    yield GaugeMetricFamily("jobtape_outbox_refused", what, value=state.refused)


def _webhooks(lags: list[WebhookLag]) -> Iterator[Metric]:
    states = dict.fromkeys(("active", "failing", "disabled"), 0) | Counter(lag.webhook.state for lag in lags)
    yield _gauges("jobtape_webhooks", "Webhooks (see `jobtape webhooks list`).", "state", states)
    what = "Age in seconds of the first event that is no delivery to an enabled webhook yet."
    late = {lag.webhook.id: lag.seconds for lag in lags if lag.seconds is not None}
    yield _gauges("jobtape_webhook_lag_seconds", what, "webhook", late)


def _workers(workers: list[SeenWorker]) -> Iterator[Metric]:
    states = dict.fromkeys(("alive", "draining", "silent"), 0) | Counter(worker.state for worker in workers)
    yield _gauges("jobtape_workers", "Workers, those of the built-in jobs too (see /workers).", "state", states)
    alive = [worker.sign for worker in workers if worker.state == "alive"]
    used = sum(sign.running for sign in alive)
    slots = {"used": used, "free": max(0, sum(sign.slots for sign in alive) - used)}
    yield _gauges("jobtape_worker_slots", "Slots of the workers that are alive.", "use", slots)


def _listeners(listeners: Listeners) -> Iterator[Metric]:
    what = "Streams and waiting requests of this API process."
    yield _gauges("jobtape_listeners", what, "kind", {kind: listeners.now[kind] for kind in KINDS})
    delivered = CounterMetricFamily(
        "jobtape_delivered_events", "Events that this API process delivered, once for each listener.", labels=["kind"]
    )
    for kind in KINDS:
        if kind != "wait":
            delivered.add_metric([kind], listeners.delivered[kind])
    yield delivered
    yield CounterMetricFamily(
        "jobtape_catch_up_reads",
        "Pages of the history that this API process read for listeners whose position was no longer in memory.",
        value=listeners.pages,
    )
