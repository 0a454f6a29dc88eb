"""The metrics that are sent by OTLP are those of ``/metrics``."""

import math
from collections.abc import Iterator

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint
from prometheus_client.parser import text_string_to_metric_families

from jobtape.schemas.errors import JobtapeError
from jobtape.telemetry import setup
from jobtape.telemetry.metrics import METRICS
from jobtape.view.store import Store
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, settings_for, without_broker
from tests.telemetry.collector import Collector, collecting
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
CHANGING = ("jobtape_projector_lag", "jobtape_publish_confirm", "jobtape_workers", "jobtape_worker_slots")
"""Those whose values may change between two scrapes though nothing is submitted."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, to which this process sends its metrics five times a second when ``setup`` is asked to."""
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        yield found
        setup._close_sender()


def samples_of(collector: Collector) -> Samples:
    """Return what has come last, as the samples that Prometheus' text has for it."""
    found: Samples = {}
    for metric in collector.metrics_of("jobtape-api").values():
        for point in (*metric.gauge.data_points, *metric.sum.data_points, *metric.histogram.data_points):
            labels = {each.key: each.value.string_value for each in point.attributes}
            for name, value, more in _values(metric.name, point):
                found[name, frozenset((labels | more).items())] = value
    return found


def _values(name: str, point: NumberDataPoint | HistogramDataPoint) -> Iterator[tuple[str, float, dict[str, str]]]:
    if isinstance(point, NumberDataPoint):
        yield name, point.as_double, {}
        return
    yield f"{name}_count", point.count, {}
    yield f"{name}_sum", point.sum, {}
    below = 0
    for bound, n in zip((*point.explicit_bounds, math.inf), point.bucket_counts, strict=True):
        below += n
        yield f"{name}_bucket", below, {"le": "+Inf" if bound == math.inf else str(bound)}


async def scrape(served: Api) -> Samples:
    text = (await served.client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def _settled(samples: Samples) -> Samples:
    """Return the samples with the value of each, but for those that change by themselves: of them the name counts."""
    return {key: 0.0 if key[0].startswith(CHANGING) else value for key, value in samples.items()}


async def test_sent_metrics_equal_those_of_a_scrape(
    collector: Collector, broker_url: str, make_topology: MakeTopology, sqlite_url: str
) -> None:
    settings = settings_for(broker_url, make_topology(), sqlite_url)
    store = Store(settings.database_url)
    store.migrate()
    topology = settings.topology.with_queues(["default"])
    async with (
        Rig(settings.rabbitmq_url, topology) as rig,
        rig.projector(store),
        rig.worker(add),
        api(settings, add) as served,
    ):
        for x in range(3):
            await rig.outcome((await served.submit(x=x))["id"])

        def sent() -> Samples | None:
            found = samples_of(collector)
            labels = frozenset({"job_type": "add", "event": "succeeded"}.items())
            complete = found.get(("jobtape_events_total", labels)) == 3
            return found if complete and ("jobtape_projector_lag_events", frozenset()) in found else None

        first = await eventually(sent)

        # What the broker or the view does not say in time is left out, of a scrape as of what is sent; and the
        # relay may still deliver the last outcomes between the two.
        async def both() -> Samples | None:
            before = len(collector.metrics)
            scraped = _settled(await scrape(served))
            await eventually(lambda: len(collector.metrics) > before + 1)
            last = samples_of(collector)
            return last if _settled(last) == scraped else None

        last = await eventually(both, what="what is sent equals a scrape")
        names = collector.metrics_of("jobtape-api").keys()
    store.close()
    assert first.keys() <= last.keys()
    assert names <= {spec.exposed for spec in METRICS}
    assert {"jobtape_run_seconds", "jobtape_jobs", "jobtape_projector_lag_events"} <= names


async def test_application_that_cannot_send_metrics_starts(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    async with api(without_broker(sqlite_url), add, ready=False):
        assert "the metrics of Jobtape are not sent: OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: 'grpc'" in caplog.text


def test_exporter_prometheus_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert setup.exporter_of("METRICS") is None
    assert setup.exporter_of("TRACES") == "otlp"


def test_interval_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1 min")
    with pytest.raises(JobtapeError, match="OTEL_METRIC_EXPORT_INTERVAL: '1 min'"):
        setup.send_metrics("worker")
