"""Makes spans with OpenTelemetry's API, named by its semantic conventions for messaging.

These conventions are still in development. There has been no other version here, so ``OTEL_SEMCONV_STABILITY_OPT_IN``
has nothing to choose from.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import Final, Literal

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from jobtape.telemetry.work import ExecutionSpan, Work

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
Operation = Literal["send", "process"]

_SYSTEM: Final = {"messaging.system": "rabbitmq"}


def is_configured() -> bool:
    """Return whether this process has a tracer provider that somebody has set."""
    provider = trace.get_tracer_provider()
    return not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)


class HandlerSpan:
    """An ``ExecutionSpan``."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.traceparent = _text(span.get_span_context())

    def end(self, error_type: str | None = None) -> None:
        """See ``ExecutionSpan.end``."""
        if error_type is not None:
            self.span.set_attribute("error.type", error_type)
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


class Spans:
    """Makes spans with ``provider``, by default the tracer provider of this process."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("jobtape", version("jobtape"), provider, _SCHEMA)
        sampler = getattr(provider or trace.get_tracer_provider(), "sampler", None)
        self._parent_decides = sampler is not None and sampler.get_description().startswith("ParentBased")

    def _is_left_out(self, parent: str | None) -> bool:
        """Return whether a span below ``parent`` would not be recorded. Then it is not made: most are not sampled."""
        return self._parent_decides and parent is not None and not int(parent[-2:], 16) & 1

    def current(self) -> str | None:
        """Return the context of the current span; None if there is none."""
        context = trace.get_current_span().get_span_context()
        return _text(context) if context.is_valid else None

    def within(self, traceparent: str) -> AbstractContextManager[Span]:
        """Return a block in which the span of another process is the current one."""
        return trace.use_span(NonRecordingSpan(_context(traceparent)))

    def enter(self, traceparent: str | None, span: ExecutionSpan | None) -> None:
        """Make a span the current one, to the end of the running context."""
        if span is not None:
            contexts.attach(trace.set_span_in_context(span.span))
        elif traceparent is not None:
            contexts.attach(_below(traceparent))

    @contextmanager
    def sending(self, destination: str, work: Work, parent: str | None) -> Iterator[str | None]:
        """Be the span of a publish. See ``tracing.sending``."""
        if self._is_left_out(parent):
            yield parent
            return
        with self._tracer.start_as_current_span(
            f"send {destination}",
            context=Context() if parent is None else _below(parent),
            kind=SpanKind.PRODUCER,
            attributes=_attributes("send", destination, work),
            record_exception=False,
        ) as span:
            yield _text(span.get_span_context())

    def started(
        self,
        operation: Operation,
        destination: str,
        work: Work,
        context: str | None,
        *,
        linked: bool = False,
    ) -> HandlerSpan | None:
        """Start a span that the caller ends. See ``tracing.placing`` and ``tracing.processing``."""
        if not linked and self._is_left_out(context):
            return None
        above = None if context is None else _context(context)
        return HandlerSpan(
            self._tracer.start_span(
                f"{operation} {destination}",
                context=Context() if above is None or linked else trace.set_span_in_context(NonRecordingSpan(above)),
                kind=SpanKind.CONSUMER if operation == "process" else SpanKind.PRODUCER,
                links=[Link(above)] if above is not None and linked else None,
                attributes=_attributes(operation, destination, work),
            )
        )


def _attributes(operation: Operation, destination: str, work: Work) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "jobtape.job.id": work.job_id,
        "jobtape.job.type": work.job_type,
        "jobtape.job.run": work.run,
        "jobtape.job.attempt": work.attempt,
    }
    if work.event_id is not None:
        attributes["messaging.message.id"] = work.event_id
    if work.correlation_id is not None:
        attributes["messaging.message.conversation_id"] = work.correlation_id
    return attributes


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _below(traceparent: str) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(_context(traceparent)))
