"""Sets OpenTelemetry up for a part of the installation, as its customary variables say.

Traces are on if ``OTEL_TRACES_EXPORTER`` or an OTLP endpoint is set, or if the application or
``opentelemetry-instrument`` has set a tracer provider. Metrics are sent if ``OTEL_METRICS_EXPORTER`` or an OTLP
endpoint is set. The SDK reads all other variables itself: the sampler, the endpoint, headers, limits, the service's
name.
"""

import atexit
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal

from jobtape.schemas.errors import JobtapeError
from jobtape.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as Provider

    from jobtape.telemetry.metric_sender import MetricSender, Source

log = logging.getLogger(__name__)

Signal = Literal["TRACES", "METRICS"]

FLUSH_TIMEOUT: Final = 1000
"""Milliseconds."""
_SERVICE: Final = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")
_INTERVAL: Final = ("OTEL_METRIC_EXPORT_INTERVAL", 60_000.0)
_TIMEOUT: Final = ("OTEL_METRIC_EXPORT_TIMEOUT", 30_000.0)
"""Milliseconds."""
_provider: "Provider | None" = None
_sender: "MetricSender | None" = None


def exporter_of(signal: Signal) -> str | None:
    """Return the exporter that the environment names for a signal; None for none. Raises JobtapeError."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    variable = f"OTEL_{signal}_EXPORTER"
    named = os.environ.get(variable, "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if not named and any(os.environ.get(each, "").strip() for each in endpoints):
        named = "otlp"
    if named in ("", "none") or (signal, named) == ("METRICS", "prometheus"):  # /metrics is there in any case
        return None
    if named not in ("otlp", "console"):
        raise JobtapeError(f"{variable}: {named!r} is not known here: use otlp, console or none")
    return named


def start(part: str, *, metrics: bool = True) -> None:
    """Begin to make traces and to send metrics in this process, if the environment asks for them.

    ``part`` is the default service name. ``metrics``: whether this process has metrics of its own. Raises JobtapeError
    when the extra is not installed, or a variable is wrong.
    """
    named = exporter_of("TRACES")
    if named is not None:
        _trace(part, named)
    tracing.enable()
    if metrics:
        send_metrics(part)


def send_metrics(part: str) -> None:
    """Begin to send the metrics of this process, if the environment asks for it. Raises as ``start``."""
    global _sender  # noqa: PLW0603 - a process has one set of metrics
    named = exporter_of("METRICS")
    if named is None or _sender is not None:
        return
    try:
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter  # noqa: PLC0415

        from jobtape.telemetry.metric_sender import MetricSender  # noqa: PLC0415
    except ImportError:
        raise JobtapeError(
            f"OTEL_* variables ask for metrics, but OpenTelemetry is not installed: {tracing.EXTRA}"
        ) from None
    exporter = otlp_exporter("METRICS") if named == "otlp" else ConsoleMetricExporter()
    interval, timeout = _seconds(*_INTERVAL), _seconds(*_TIMEOUT)
    _sender = MetricSender(exporter, resource_of(part), interval=interval, timeout=timeout)
    atexit.register(_close_sender)


def metrics_of_application(source: "Source") -> AbstractContextManager[None]:
    """Return a block in which the metrics of ``source`` are sent too, if the environment asks for metrics.

    An application may be one of ours, or have configured OpenTelemetry itself: what cannot be sent here is only logged.
    """
    try:
        send_metrics("api")
    except JobtapeError as error:
        log.warning("the metrics of Jobtape are not sent: %s; or set OTEL_METRICS_EXPORTER=none", error)
    return nullcontext() if _sender is None else _sender.also_from(source)


def flush() -> None:
    """Send what was not sent yet, in a second at most: for a process that will end without Python's own clean-up."""
    if _provider is not None:
        _provider.force_flush(FLUSH_TIMEOUT)
    _close_sender()


def _close_sender() -> None:
    global _sender  # noqa: PLW0603 - see ``send_metrics``
    if _sender is not None:
        _sender.close()
        _sender = None


def _seconds(variable: str, default: float) -> float:
    """Return the seconds of a variable in milliseconds."""
    text = os.environ.get(variable, "").strip()
    try:
        found = float(text) if text else default
        if 0 < found < float("inf"):
            return found / 1000
    except ValueError:
        pass
    raise JobtapeError(f"{variable}: {text!r} is no number of milliseconds above 0: use {default:.0f}, or leave it out")


def resource_of(part: str) -> "Resource":
    """Return what the environment says about this service, with a name in any case."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415

    named = os.environ.get(_SERVICE[0]) or f"{SERVICE_NAME}=" in os.environ.get(_SERVICE[1], "")
    return Resource.create({} if named else {SERVICE_NAME: f"jobtape-{part}"})


def otlp_exporter(signal: Signal) -> Any:
    """Return the OTLP exporter for a signal. Raises JobtapeError when its package is not installed."""
    variable = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    protocol = os.environ.get(variable) or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    try:
        if protocol == "http/protobuf":
            if signal == "TRACES":
                from jobtape.telemetry.otlp import Exporter  # noqa: PLC0415

                return Exporter()
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

            return OTLPMetricExporter()
    except ImportError:
        raise JobtapeError(f"OTLP is asked for, but its package is not installed: {tracing.EXTRA}") from None
    raise JobtapeError(f"{variable}: {protocol!r} is not known here: use http/protobuf, which collectors take as well")


def _trace(part: str, named: str) -> None:
    global _provider  # noqa: PLW0603 - OpenTelemetry has one for the process, too
    try:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415

        from jobtape.telemetry.light_span import LightProvider  # noqa: PLC0415
        from jobtape.telemetry.roots import Roots  # noqa: PLC0415
    except ImportError:
        raise JobtapeError(
            f"OTEL_* variables ask for traces, but OpenTelemetry is not installed: {tracing.EXTRA}"
        ) from None
    if tracing.is_configured():
        return
    provider = LightProvider(resource=resource_of(part))
    provider.id_generator = Roots(provider.sampler)  # the sampler is what the provider has read from the environment
    provider.add_span_processor(
        BatchSpanProcessor(otlp_exporter("TRACES") if named == "otlp" else ConsoleSpanExporter())
    )
    trace.set_tracer_provider(provider)
    _provider = provider
