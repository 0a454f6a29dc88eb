"""The table of all metrics. Collectors, instruments, the reference page, the dashboard and the alerts are made from it.

No label is ever the id of a job or a key, or anything else without a small number of values.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

Kind = Literal["gauge", "counter", "histogram"]
Source = Literal["installation", "api", "process"]
"""Who has it: ``installation``, each API process says the same; ``api``, each API process has its own; ``process``,
each process has its own: API, worker, projector, outbox."""


class MetricSpec(NamedTuple):
    """A metric. ``name`` is without the suffix ``_total`` of counters. ``meaning`` is its help text."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    source: Source = "installation"

    @property
    def exposed(self) -> str:
        """The name in the text format; that of a histogram has suffixes."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def family(self, values: Mapping[Any, float] | float) -> Metric:
        """Return a gauge or counter with ``values`` by the tuples of its labels' values; a number if it has none."""
        cls = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = cls(self.name, self.meaning, labels=self.labels)
        found = values if isinstance(values, Mapping) else {(): values}
        for labels, value in found.items():
            family.add_metric(labels, value)
        return family


UP: Final = MetricSpec("jobtape_up", "gauge", ("part",), "1 if the part is ready; /health/ready says why not")
EVENTS: Final = MetricSpec(
    "jobtape_events",
    "counter",
    ("job_type", "event"),
    "events that changed a job, exact: accepted jobs are event=submitted, outcomes succeeded, failed, cancelled",
)
JOBS: Final = MetricSpec(
    "jobtape_jobs", "gauge", ("job_type", "state"), "jobs in the view, exact and not counted by reading rows"
)
HELD: Final = MetricSpec(
    "jobtape_held",
    "gauge",
    ("limit",),
    "held jobs by what they may have to wait for: the name of a limit, or ordering key, unique key, debounce key, "
    "follow-ups of the job; a job counts once for each; not counted by reading rows",
)
QUEUE_DEPTH: Final = MetricSpec("jobtape_queue_depth", "gauge", ("queue",), "jobs that wait for a worker")
QUEUE_CONSUMERS: Final = MetricSpec("jobtape_queue_consumers", "gauge", ("queue",), "workers that take from the queue")
QUEUE_OLDEST: Final = MetricSpec(
    "jobtape_queue_oldest_seconds",
    "gauge",
    ("queue", "lane"),
    "for how long the job has been due that has waited longest for a worker; 0 if none waits",
)
WORKERS: Final = MetricSpec(
    "jobtape_workers",
    "gauge",
    ("state",),
    "workers that are alive, draining (they stop) or silent (killed or cut off), also those of the built-in jobs",
)
WORKER_SLOTS: Final = MetricSpec(
    "jobtape_worker_slots", "gauge", ("use",), "slots of workers that are alive, used and free"
)
LAG: Final = MetricSpec(
    "jobtape_projector_lag_seconds", "gauge", (), "how long an event published now takes until it can be read"
)
LAG_EVENTS: Final = MetricSpec(
    "jobtape_projector_lag_events",
    "gauge",
    (),
    "events on the tape that are not in the view yet, up to the first of those that the broker wrote last; not shown "
    "while no projector is active",
)
TIMERS: Final = MetricSpec(
    "jobtape_timers_behind_seconds",
    "gauge",
    (),
    "how late the earliest delayed job or retry is that is due and not on its queue yet",
)
OUTBOX_DEPTH: Final = MetricSpec(
    "jobtape_outbox_depth", "gauge", (), "jobs that wait in the outbox, 100000 at most; from who forwards it", "api"
)
OUTBOX_OLDEST: Final = MetricSpec(
    "jobtape_outbox_oldest_seconds", "gauge", (), "how long the first of them has waited", "api"
)
OUTBOX_REFUSED: Final = MetricSpec(
    "jobtape_outbox_refused", "gauge", (), "those of them that cannot be published: jobtape outbox --list", "api"
)
RELAY_LAG: Final = MetricSpec(
    "jobtape_relay_lag_seconds", "gauge", (), "age of the oldest event that the relay has not published yet"
)
RELAY_STALLED: Final = MetricSpec(
    "jobtape_relay_stalled", "gauge", (), "1 while the broker confirms nothing of what the relay publishes"
)
RELAY_STALLS: Final = MetricSpec("jobtape_relay_stalls", "counter", (), "how often that began")
RELAY_DELIVERED: Final = MetricSpec(
    "jobtape_relay_delivered", "counter", (), "events published to subscribers and confirmed"
)
RELAY_REFUSED: Final = MetricSpec("jobtape_relay_refused", "counter", (), "events that a full queue refused")
WEBHOOKS: Final = MetricSpec(
    "jobtape_webhooks", "gauge", ("state",), "webhooks that are active, failing or disabled: jobtape webhooks list"
)
WEBHOOK_LAG: Final = MetricSpec(
    "jobtape_webhook_lag_seconds",
    "gauge",
    ("webhook",),
    "age of the first event that is no delivery to an enabled webhook yet",
)
LISTENERS: Final = MetricSpec(
    "jobtape_listeners", "gauge", ("kind",), "open streams, WebSockets and waiting requests of this process", "api"
)
DELIVERED_EVENTS: Final = MetricSpec(
    "jobtape_delivered_events", "counter", ("kind",), "events that this process sent to its listeners", "api"
)
CATCH_UP_READS: Final = MetricSpec(
    "jobtape_catch_up_reads", "counter", (), "pages of history that were read for listeners behind the buffer", "api"
)
JOB_WAIT: Final = MetricSpec(
    "jobtape_job_wait_seconds",
    "histogram",
    ("job_type",),
    "from the placement of a job's work to the start of its handler, by the clocks of both processes",
    "process",
)
JOB_RUN: Final = MetricSpec(
    "jobtape_run_seconds",
    "histogram",
    ("job_type", "outcome"),
    "executions: how long the handler ran; outcome is succeeded, failed, retrying or continued",
    "process",
)
PUBLISH_CONFIRM: Final = MetricSpec(
    "jobtape_publish_confirm_seconds",
    "histogram",
    (),
    "from a publish to its confirm, with repeats; those of a batch are left out",
    "process",
)
REDELIVERIES: Final = MetricSpec(
    "jobtape_redeliveries", "counter", (), "deliveries that came back because a worker died or rejected them", "process"
)
RECONNECTS: Final = MetricSpec(
    "jobtape_reconnects", "counter", ("part",), "connections to the broker that were made again", "process"
)

METRICS: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, MetricSpec))
