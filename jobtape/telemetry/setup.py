"""Sets OpenTelemetry up for a part of the installation, as its customary variables say.

Traces are on if ``OTEL_TRACES_EXPORTER`` or an OTLP endpoint is set, or if the application or
``opentelemetry-instrument`` has set a tracer provider. The SDK reads all other variables itself: the sampler, the
endpoint, headers, limits, the service's name.
"""

import os
from typing import TYPE_CHECKING, Any, Final, Literal

from jobtape.schemas.errors import JobtapeError
from jobtape.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as Provider

Signal = Literal["TRACES", "METRICS"]

FLUSH_TIMEOUT: Final = 1000
"""Milliseconds."""
EXTRA: Final = "pip install 'jobtape[otel]'"
_SERVICE: Final = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")
_provider: "Provider | None" = None


def exporter_of(signal: Signal) -> str | None:
    """Return the exporter that the environment names for a signal; None for none. Raises JobtapeError."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    variable = f"OTEL_{signal}_EXPORTER"
    named = os.environ.get(variable, "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if not named and any(os.environ.get(each, "").strip() for each in endpoints):
        named = "otlp"
    if named in ("", "none"):
        return None
    if named not in ("otlp", "console"):
        raise JobtapeError(f"{variable}: {named!r} is not known here: use otlp, console or none")
    return named


def start(part: str) -> None:
    """Begin to make traces in this process, if the environment asks for them. ``part`` is the default service name.

    Raises JobtapeError when the extra is not installed, or a variable is wrong.
    """
    named = exporter_of("TRACES")
    if named is not None:
        _trace(part, named)
    tracing.enable()


def flush() -> None:
    """Send what was not sent yet, in a second at most: for a process that will end without Python's own clean-up."""
    if _provider is not None:
        _provider.force_flush(FLUSH_TIMEOUT)


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
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

                return OTLPSpanExporter()
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

            return OTLPMetricExporter()
    except ImportError:
        raise JobtapeError(f"OTLP is asked for, but its package is not installed: {EXTRA}") from None
    raise JobtapeError(f"{variable}: {protocol!r} is not known here: use http/protobuf, which collectors take as well")


def _trace(part: str, named: str) -> None:
    global _provider  # noqa: PLW0603 - OpenTelemetry has one for the process, too
    try:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415

        from jobtape.telemetry.roots import Roots  # noqa: PLC0415
        from jobtape.telemetry.spans import is_configured  # noqa: PLC0415
    except ImportError:
        raise JobtapeError(f"OTEL_* variables ask for traces, but OpenTelemetry is not installed: {EXTRA}") from None
    if is_configured():
        return
    provider = TracerProvider(resource=resource_of(part))
    provider.id_generator = Roots(provider.sampler)  # the sampler is what the provider has read from the environment
    provider.add_span_processor(
        BatchSpanProcessor(otlp_exporter("TRACES") if named == "otlp" else ConsoleSpanExporter())
    )
    trace.set_tracer_provider(provider)
    _provider = provider
