"""Sends the metrics of the table with OpenTelemetry's exporter: the same families as ``/metrics``, at the same values.

They are converted from Prometheus' families instead of recorded twice, so both always agree, and an execution costs
nothing more. Sums are cumulative from the beginning, also if the exporter prefers deltas, because those of the view are
older than this process.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as SentMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from jobtape.telemetry import instruments

log = logging.getLogger(__name__)

Source = Callable[[], Awaitable[Iterable[Metric]]]

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the last metrics of a process that ends."""
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_SECONDS: Final = "_seconds"


class MetricSender:
    """Sends the metrics of this process every ``interval`` seconds, from a thread of its own.

    ``timeout``: seconds for reading a source, and for the exporter.
    """

    def __init__(self, exporter: MetricExporter, resource: Resource, *, interval: float, timeout: float) -> None:
        self._exporter = exporter
        self._resource = resource
        self._interval = interval
        self._timeout = timeout
        self._sources: list[tuple[Source, asyncio.AbstractEventLoop]] = []
        self._began = time.time_ns()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    @contextmanager
    def also_from(self, source: Source) -> Iterator[None]:
        """Inside the block, send the metrics of ``source`` too. It is called on the running loop."""
        entry = (source, asyncio.get_running_loop())
        self._sources.append(entry)
        try:
            yield
        finally:
            self._sources.remove(entry)

    def close(self) -> None:
        """Send the metrics once more, within a second, and stop."""
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT)
        self._exporter.shutdown()

    def _run(self) -> None:
        # Or an instrumentation of the HTTP client would make spans of the exporter's requests.
        contexts.attach(contexts.set_value(contexts._SUPPRESS_INSTRUMENTATION_KEY, True))
        while not self._closing.wait(self._interval):
            self._send()
        self._send()

    def _send(self) -> None:
        families = list(instruments.REGISTRY.collect())
        try:
            for source, loop in tuple(self._sources):
                families += asyncio.run_coroutine_threadsafe(_read(source), loop).result(self._timeout)
        except Exception as error:  # noqa: BLE001 - the loop may have ended; the metrics of the process are sent anyway
            log.warning("metrics of the installation are not sent this time: %s", error or type(error).__name__)
        try:
            self._exporter.export(self.data(families), timeout_millis=self._timeout * 1000)
        except Exception:
            log.exception("metrics were not sent")

    def data(self, families: Iterable[Metric]) -> MetricsData:
        """Return the families as OpenTelemetry has them."""
        now = time.time_ns()
        made = [_converted(family, self._began, now) for family in families if family.samples]
        scope = InstrumentationScope("jobtape", version("jobtape"))
        return MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(scope, made, "")], "")])


async def _read(source: Source) -> list[Metric]:
    return list(await source())


def _converted(family: Metric, began: int, now: int) -> SentMetric:
    """Return a family as a metric. ``began``: since when this process counts, for series that do not say it."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    unit = "s" if family.name.endswith(_SECONDS) else ""
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in family.samples:
        labels = tuple((label, value) for label, value in sample.labels.items() if label != "le")
        series.setdefault(labels, []).append(sample)
    data: Gauge | Sum | Histogram
    if family.type == "histogram":
        points = [_histogram(dict(labels), samples, now) for labels, samples in series.items()]
        data = Histogram(points, _CUMULATIVE)
    else:
        numbers = [_number(dict(labels), samples, began, now) for labels, samples in series.items()]
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if family.type == "counter" else Gauge(numbers)
    return SentMetric(name, family.documentation, unit, data)


def _number(labels: dict[str, str], samples: list[Sample], began: int, now: int) -> NumberDataPoint:
    value = next(sample.value for sample in samples if not sample.name.endswith("_created"))
    return NumberDataPoint(labels, _created(samples, began), now, float(value))


def _histogram(labels: dict[str, str], samples: list[Sample], now: int) -> HistogramDataPoint:
    values = {sample.name.rpartition("_")[2]: sample.value for sample in samples if "le" not in sample.labels}
    buckets = sorted((float(sample.labels["le"]), int(sample.value)) for sample in samples if "le" in sample.labels)
    below = [0, *(n for _, n in buckets)]
    unknown: Any = None  # OTLP leaves least and most out; the class of the SDK does not say so
    return HistogramDataPoint(
        labels,
        _created(samples, now),
        now,
        count=int(values["count"]),
        sum=values["sum"],
        bucket_counts=[n - before for before, n in pairwise(below)],
        explicit_bounds=[bound for bound, _ in buckets if bound != math.inf],
        min=unknown,
        max=unknown,
    )


def _created(samples: list[Sample], otherwise: int) -> int:
    return next((int(sample.value * 1e9) for sample in samples if sample.name.endswith("_created")), otherwise)
