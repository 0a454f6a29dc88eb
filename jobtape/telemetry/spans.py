"""Makes spans with OpenTelemetry's API, named by its semantic conventions for messaging.

These conventions are still in development. There has been no other version here, so ``OTEL_SEMCONV_STABILITY_OPT_IN``
has nothing to choose from.
"""

import random
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from importlib.metadata import version
from types import TracebackType
from typing import Final, Literal

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from jobtape.schemas.events.trace_context import UNSAMPLED, unsampled_context
from jobtape.telemetry.light_span import LightProvider, LightSpans
from jobtape.telemetry.request_span import RequestSpan, Scope
from jobtape.telemetry.roots import Roots
from jobtape.telemetry.work import ExecutionSpan, Send, Work

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
Operation = Literal["send", "process"]

_DROPS: Final = "remoteParentNotSampled:AlwaysOffSampler"
"""In the description of a sampler that records nothing below a context that is not sampled."""
_SAMPLES: Final = "remoteParentSampled:AlwaysOnSampler"
"""In the description of a sampler that records what is below a context that is sampled."""
_EVEN: Final = frozenset("02468ace")
"""The last digit of a context that is not sampled."""
_SYSTEM: Final = {"messaging.system": "rabbitmq"}
_UNSAMPLED: Final = nullcontext(UNSAMPLED)


class SpanElsewhere(NonRecordingSpan):
    """A span of another process, or one that was left out. Its context is only read if somebody asks for it.

    ``drops``: whether no span is made below it, because it would not be recorded.
    """

    def __init__(self, traceparent: str, *, drops: bool) -> None:
        self.traceparent = traceparent
        self.drops = drops
        self._read: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        if self._read is None:
            self._read = _context(self.traceparent)
        return self._read

    def __repr__(self) -> str:
        return f"SpanElsewhere({self.traceparent!r})"


class LeftOut(NonRecordingSpan):
    """The first span of a trace that is not sampled, which is not made. One object stands for all of them.

    What it is above in this process is not sampled either. A job below it gets a context of its own from its id.
    """

    def __init__(self) -> None:
        super().__init__(SpanContext(random.getrandbits(128) | 1, random.getrandbits(64) | 1, is_remote=False))


class Below:
    """Makes a span the current one inside a ``with`` block."""

    __slots__ = ("_span", "_token")

    _token: Token[Context]

    def __init__(self, span: SpanElsewhere | LeftOut) -> None:
        self._span = span

    def __enter__(self) -> None:
        alone = self._span is _LEFT_OUT and not contexts.get_current()
        self._token = contexts.attach(_LEFT_OUT_ALONE if alone else trace.set_span_in_context(self._span))

    def __exit__(self, *_: object) -> None:
        contexts.detach(self._token)

    def noting_status(self, send: Send) -> Send:
        """Return ``send`` of ASGI. Nothing notes the status of the response."""
        return send


_LEFT_OUT: Final = LeftOut()
_LEFT_OUT_ALONE: Final = trace.set_span_in_context(_LEFT_OUT, Context())


class HandlerSpan:
    """An ``ExecutionSpan``."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.traceparent = span.traceparent if isinstance(span, SpanElsewhere) else _text(span.get_span_context())

    def end(self, error_type: str | None = None) -> None:
        """See ``ExecutionSpan.end``."""
        if error_type is not None:
            self.span.set_attribute("error.type", error_type)
            self.span.set_status(StatusCode.ERROR)
        self.span.end()

    def __enter__(self) -> str:
        return self.traceparent

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(None if error_type is None else error_type.__qualname__)


class Spans:
    """Makes spans with ``provider``, by default the tracer provider of this process."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        name, number = "jobtape", version("jobtape")
        self._tracer = trace.get_tracer(name, number, provider, _SCHEMA)
        used = provider or trace.get_tracer_provider()
        sampler, ids = getattr(used, "sampler", None), getattr(used, "id_generator", None)
        description = "" if sampler is None else sampler.get_description()
        self._parent_decides = _DROPS in description
        self._roots = ids if isinstance(ids, Roots) else None
        self._light: LightSpans | None = None
        if isinstance(used, LightProvider) and self._roots is not None and self._roots.decides:
            scope = InstrumentationScope(name, number, _SCHEMA)
            self._light = LightSpans(used, self._tracer, scope, self._roots, below=_SAMPLES in description)

    def leaves_out(self, parent: str | None) -> bool:
        """Return whether a span below ``parent`` would not be recorded. Then no span is made: most are not sampled, and
        one that is not recorded costs as well.

        Without ``parent`` the root of a trace is decided here; the next one that this thread makes has to be it.
        """
        if parent is None:
            return self._roots is not None and self._roots.leaves_out()
        return self._parent_decides and parent[-1] in _EVEN

    def request(self, scope: Scope, parent: str | None, method: str) -> RequestSpan | Below:
        """Start the span of a request, or return a block with the context to pass on. See ``tracing.request``."""
        if self.leaves_out(parent):
            return Below(_LEFT_OUT if parent is None else SpanElsewhere(parent, drops=True))
        above = None if parent is None else _context(parent, _trace_state(scope["headers"]))
        return RequestSpan(self._start, scope, above, method=method)

    def current(self) -> str | None:
        """Return the context of the current span; None if there is none, or it was left out."""
        if not contexts.get_current():
            return None
        span = trace.get_current_span()
        if isinstance(span, SpanElsewhere):
            return span.traceparent
        if span is trace.INVALID_SPAN or span is _LEFT_OUT:
            return None
        context = span.get_span_context()
        return _text(context) if context.is_valid else None

    def below(self, traceparent: str) -> Below:
        """Return a block in which the span of another process is the current one."""
        return Below(SpanElsewhere(traceparent, drops=self.leaves_out(traceparent)))

    def enter(self, traceparent: str | None, span: ExecutionSpan | None) -> None:
        """Make a span the current one, to the end of the running context."""
        if span is not None:
            contexts.attach(trace.set_span_in_context(span.span))
        elif traceparent is not None:
            elsewhere = SpanElsewhere(traceparent, drops=self.leaves_out(traceparent))
            contexts.attach(trace.set_span_in_context(elsewhere))

    def for_submission(self) -> str | None:
        """Return the context of the current span for a submission that has no span of its own; None if there is none.
        See ``tracing.sending``.
        """
        return UNSAMPLED if trace.get_current_span() is _LEFT_OUT else self.current()

    def sending(self, destination: str, work: Work, given: str | None) -> AbstractContextManager[str | None]:
        """Return the span of a publish. It is not made the current one, because nothing is below it here.

        ``given``: the context of the span above if there is no current one.
        """
        current = trace.get_current_span()
        if current is _LEFT_OUT:
            return _UNSAMPLED
        if isinstance(current, SpanElsewhere) and current.drops:
            return nullcontext(current.traceparent)
        if current.is_recording():
            above: SpanContext | None = current.get_span_context()
        else:
            parent = self.current() or given
            if self.leaves_out(parent):
                return _UNSAMPLED if parent is None else nullcontext(parent)
            above = None if parent is None else _context(parent)
        attributes = _attributes("send", destination, work)
        return HandlerSpan(self._start(f"send {destination}", above, SpanKind.PRODUCER, attributes))

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
        begins = linked or context is None
        if self.leaves_out(None if begins else context):
            # The caller has the context already, unless a trace would begin here.
            return HandlerSpan(SpanElsewhere(unsampled_context(work.job_id), drops=True)) if begins else None
        above = None if context is None else _context(context)
        kind = SpanKind.CONSUMER if operation == "process" else SpanKind.PRODUCER
        name, attributes = f"{operation} {destination}", _attributes(operation, destination, work)
        if linked:
            return HandlerSpan(self._start(name, None, kind, attributes, above))
        return HandlerSpan(self._start(name, above, kind, attributes))

    def _start(
        self,
        name: str,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        link: SpanContext | None = None,
    ) -> Span:
        """Start a span that is not to be left out."""
        if self._light is not None and link is None:
            light = self._light.start(name, parent, kind, attributes)
            if light is not None:
                return light
        context = Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context())
        links = None if link is None else [Link(link)]
        return self._tracer.start_span(name, context=context, kind=kind, links=links, attributes=attributes)


def _attributes(operation: Operation, destination: str, work: Work) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
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


def _context(traceparent: str, trace_state: TraceState | None = None) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), trace_state)


def _trace_state(headers: Iterable[tuple[bytes, bytes]]) -> TraceState | None:
    """Return what the headers ``tracestate`` of a request say, which may be several; None without one."""
    found = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    return TraceState.from_header(found) if found else None
