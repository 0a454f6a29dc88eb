"""The metrics that a process counts itself. What has to be exact about jobs is read from the view instead."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from jobtape.telemetry import metrics

REGISTRY: Final = CollectorRegistry()
_DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_CONFIRMS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds."""


def _histogram(spec: metrics.MetricSpec, bounds: tuple[float, ...]) -> Histogram:
    return Histogram(spec.name, spec.meaning, spec.labels, registry=REGISTRY, buckets=bounds)


def _counter(spec: metrics.MetricSpec) -> Counter:
    return Counter(spec.name, spec.meaning, spec.labels, registry=REGISTRY)


job_wait: Final = _histogram(metrics.JOB_WAIT, _DURATIONS)
job_run: Final = _histogram(metrics.JOB_RUN, _DURATIONS)
publish_confirm: Final = _histogram(metrics.PUBLISH_CONFIRM, _CONFIRMS)
redeliveries: Final = _counter(metrics.REDELIVERIES)
reconnects: Final = _counter(metrics.RECONNECTS)


def note_execution(job_type: str, outcome: str, wait: float, run: float) -> None:
    """Count an execution that has ended. ``wait`` and ``run``: seconds before and in the handler."""
    job_wait.labels(job_type).observe(max(0.0, wait))
    job_run.labels(job_type, outcome).observe(run)


def exposition() -> bytes:
    """Return these metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
