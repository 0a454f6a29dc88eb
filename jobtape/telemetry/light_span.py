"""Spans that take less processor time than those of the SDK, for the provider that ``setup`` makes.

Theory of operation. The SDK asks the sampler, copies and checks each attribute under a lock, and makes a second object
when the span ends. A ``LightSpan`` only keeps what it is given, and hands it to the only processor at its end. What it
cannot keep (events, links, values that have to be checked) makes it start a span of the SDK with the same ids, to which
everything is then left: so a handler sees no difference. ``LightProvider`` says whether light spans are possible: an
application may have added a processor that wants each span at its start, or limits may be set.
"""

import random
import threading
from collections.abc import Mapping
from time import time_ns
from types import TracebackType
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes, AttributeValue

from jobtape.telemetry.roots import Roots

_UNSET: Final = Status()
_ERROR: Final = Status(StatusCode.ERROR)
_PLAIN: Final = frozenset({str, bool, int, float})
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_making: Final = threading.Lock()


class LightProvider(TracerProvider):
    """A provider that knows its processors."""

    _processors: tuple[SpanProcessor, ...] = ()

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor."""
        super().add_span_processor(span_processor)
        self._processors = (*self._processors, span_processor)

    @property
    def only_processor(self) -> SpanProcessor | None:
        """The processor, if there is one."""
        return self._processors[0] if len(self._processors) == 1 else None


class LightSpans:
    """Makes light spans. ``tracer``: of ``provider``; it makes the SDK's. ``roots``: the provider's ids.
    ``below``: its sampler samples what is below a span that is sampled.
    """

    def __init__(
        self, provider: LightProvider, tracer: Tracer, scope: InstrumentationScope, roots: Roots, *, below: bool
    ) -> None:
        self._provider = provider
        self._tracer = tracer
        self._scope = scope
        self._roots = roots
        self._below = below
        limits = SpanLimits()
        self._most = limits.max_span_attributes
        self._unlimited = limits.max_span_attribute_length is None
        self._root_flags = _SAMPLED_RANDOM if roots.is_trace_id_random() else _SAMPLED

    def start(
        self,
        name: str,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
    ) -> "LightSpan | None":
        """Start a span that is sampled; None if it has to be one of the SDK.

        ``parent``: None for the first span of the trace that ``Roots.leaves_out`` has decided on. ``attributes``: plain
        values.
        """
        processor = self._provider.only_processor
        if processor is None or not self._unlimited or not self.has_room(len(attributes)):
            return None
        if parent is not None and not (self._below and parent.trace_flags & TraceFlags.SAMPLED):
            return None
        span_id = random.getrandbits(64) | 1  # 0 is no id
        if parent is None:
            context = SpanContext(self._roots.generate_trace_id(), span_id, False, self._root_flags)
        else:
            flags = _SAMPLED_RANDOM if parent.trace_flags & TraceFlags.RANDOM_TRACE_ID else _SAMPLED
            context = SpanContext(parent.trace_id, span_id, False, flags, parent.trace_state)
        return LightSpan(self, processor, name, context, parent, kind, attributes)

    def ended(self, span: "LightSpan", end_time: int) -> ReadableSpan:
        """Return what is exported of a span."""
        return ReadableSpan(
            span._name,
            span._context,
            span._parent,
            self._provider.resource,
            span._attributes,
            (),
            (),
            span._kind,
            status=span._status,
            start_time=span._start_time,
            end_time=end_time,
            instrumentation_scope=self._scope,
        )

    def has_room(self, attributes: int) -> bool:
        """Return whether a span may have so many attributes."""
        return self._most is None or attributes <= self._most

    def make(self, span: "LightSpan") -> Span:
        """Start the SDK's span with the same ids."""
        above = Context() if span._parent is None else set_span_in_context(NonRecordingSpan(span._parent), Context())
        with self._roots.giving(span._context.trace_id, span._context.span_id):
            made = self._tracer.start_span(span._name, above, span._kind, span._attributes, start_time=span._start_time)
        if span._status is not _UNSET:
            made.set_status(span._status)
        return made


class LightSpan(Span):
    """See the module."""

    def __init__(
        self,
        spans: LightSpans,
        processor: SpanProcessor,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
    ) -> None:
        self._spans = spans
        self._processor = processor
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._status = _UNSET
        self._start_time = time_ns()
        self._ended = False
        self._made: Span | None = None

    def get_span_context(self) -> SpanContext:
        """Return the context."""
        return self._context

    def is_recording(self) -> bool:
        """Return whether it has not ended."""
        return not self._ended

    def update_name(self, name: str) -> None:
        """Set the name."""
        if self._made is None:
            self._name = name
        else:
            self._made.update_name(name)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set an attribute."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set attributes."""
        if (
            self._made is None
            and not self._ended
            and all(type(key) is str and key and type(value) in _PLAIN for key, value in attributes.items())
            and self._spans.has_room(len(self._attributes) + len(attributes))
        ):
            self._attributes.update(attributes)
        else:
            self._left().set_attributes(attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status."""
        if self._made is None and status is StatusCode.ERROR and description is None and self._status is _UNSET:
            self._status = _ERROR
        else:
            self._left().set_status(status, description)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Add an event."""
        self._left().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link."""
        self._left().add_link(context, attributes)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event for an exception."""
        self._left().record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        """End it."""
        ended, self._ended = self._ended, True
        if self._made is not None:
            self._made.end(end_time)
        elif not ended:
            self._processor.on_end(self._spans.ended(self, end_time or time_ns()))

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.end()
        else:
            self._left().__exit__(error_type, error, traceback)
            self._ended = True

    def __getattr__(self, name: str) -> Any:
        """Return what only the SDK's span has."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._left(), name)

    def _left(self) -> Span:
        """Return the SDK's span with the same ids; one that records nothing after the end."""
        with _making:
            if self._made is None and not self._ended:
                self._made = self._spans.make(self)
            return self._made or NonRecordingSpan(self._context)
