"""Light spans beside those of the SDK: what is exported is the same, whatever is done with them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes

from jobtape.telemetry import otlp
from jobtape.telemetry.light_span import LightProvider, LightSpan
from jobtape.telemetry.roots import Roots
from jobtape.telemetry.spans import HandlerSpan, Spans
from jobtape.telemetry.work import Work

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"
OTHER = SpanContext(2**100, 2**50, is_remote=True)
WORK = Work("a job", "add", correlation_id="c", event_id="e")


class Named(Sampler):
    """Drops what is called "process x"."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        return SamplingResult(Decision.DROP if name == "process x" else Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return "Named"


def made(
    provider: type[TracerProvider], sampler: Sampler = DEFAULT_ON
) -> tuple[Spans, InMemorySpanExporter, TracerProvider]:
    exporter = InMemorySpanExporter()
    opened = provider(sampler=sampler, id_generator=Roots(sampler))
    opened.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(opened), exporter, opened


def started(spans: Spans, context: str | None = PARENT) -> HandlerSpan:
    span = spans.started("process", "x", WORK, context)
    assert span is not None
    return span


def fail(span: Span) -> None:
    with pytest.raises(ValueError, match="why"), span:
        raise ValueError("why")


def change_after_end(span: Span) -> None:
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.set_status(StatusCode.ERROR)
    span.end()


def set_all(span: Span) -> None:
    span.set_attributes({"a": "x" * 300, "b": True, "c": 1.5, "d": -1})
    span.update_name("renamed")
    span.set_status(StatusCode.ERROR)


def change_the_sdks(span: Span) -> None:
    span.set_attribute("before", 1)
    span.add_event("event", {"x": [1, 2]})
    span.set_attribute("after", 2)
    span.update_name("renamed")
    span.set_status(Status(StatusCode.ERROR, "why"))


@pytest.mark.parametrize(
    "change",
    [
        lambda span: None,
        set_all,
        change_the_sdks,
        change_after_end,
        fail,
        lambda span: span.set_attribute("list", ["a", "b"]),
        lambda span: span.set_attribute("", 1),
        lambda span: span.set_attribute("object", object()),
        lambda span: span.set_attributes({str(n): n for n in range(200)}),
        lambda span: span.record_exception(LookupError("why")),
        lambda span: span.add_link(OTHER, {"x": 1}),
        lambda span: (span.set_status(StatusCode.OK), span.set_status(StatusCode.ERROR)),
        lambda span: (span.set_status(StatusCode.ERROR), span.set_status(StatusCode.OK)),
        lambda span: span.__enter__().__exit__(None, None, None),
    ],
)
@pytest.mark.parametrize("context", [PARENT, None])
def test_export_is_that_of_the_sdk(change: Callable[[Span], None], context: str | None) -> None:
    exported = []
    for provider in (TracerProvider, LightProvider):
        spans, exporter, opened = made(provider)
        handled = started(spans, context)
        assert isinstance(handled.span, LightSpan) == (provider is LightProvider)
        change(handled.span)
        if handled.span.is_recording():
            handled.end()
        (span,) = exporter.get_finished_spans()
        assert handled.traceparent.split("-")[1:3] == [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
        exported.append(comparable(span))
        assert otlp.encode([span])
        opened.shutdown()
    assert exported[0] == exported[1]


def comparable(span: ReadableSpan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(span.to_json())
    assert span.context is not None
    found["flags"] = span.context.trace_flags
    found["scope"] = str(span.instrumentation_scope)
    found["parent"] = None if span.parent is None else (span.parent.trace_id, span.parent.is_remote)
    found["dropped"] = (span.dropped_attributes, span.dropped_events, span.dropped_links)
    assert found.pop("start_time") <= found.pop("end_time")
    del found["context"]
    for event in found["events"]:
        del event["timestamp"]
        event["attributes"].pop("exception.stacktrace", None)
    return found


def test_what_only_the_sdk_has_can_be_read() -> None:
    spans, exporter, opened = made(LightProvider)
    span: Any = started(spans).span
    assert span.name == "process x"
    assert dict(span.attributes)["jobtape.job.id"] == "a job"
    with pytest.raises(AttributeError):
        _ = span.unknown
    span.end()
    assert [each.name for each in exporter.get_finished_spans()] == ["process x"]
    opened.shutdown()


def test_second_processor_gets_each_span_at_its_start() -> None:
    class Starts(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            names.append(span.name)

    names: list[str] = []
    spans, exporter, opened = made(LightProvider)
    opened.add_span_processor(Starts())
    started(spans).end()
    assert names == [span.name for span in exporter.get_finished_spans()] == ["process x"]
    opened.shutdown()


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3"), ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")]
)
def test_limits_of_the_environment_hold(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    spans, exporter, opened = made(LightProvider)
    started(spans).end()
    (span,) = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert len(attributes) == 3 or {len(text) for text in attributes.values() if isinstance(text, str)} <= {1, 3}
    opened.shutdown()


@pytest.mark.parametrize("kind", [TracerProvider, LightProvider])
@pytest.mark.parametrize(
    ("sampler", "context", "recorded"),
    [
        (ALWAYS_ON, None, True),
        (ALWAYS_OFF, None, False),
        (ParentBased(ALWAYS_OFF), None, False),
        (ParentBased(ALWAYS_OFF), PARENT, True),
        (ALWAYS_OFF, PARENT, False),
        (TraceIdRatioBased(0.0), None, False),
        (ParentBased(TraceIdRatioBased(1.0)), None, True),
        (Named(), None, False),
        (ParentBased(Named()), None, False),
        (ParentBased(Named()), PARENT, True),
        (ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF), PARENT, False),
    ],
)
def test_sampler_decides(kind: type[TracerProvider], sampler: Sampler, context: str | None, recorded: bool) -> None:
    spans, exporter, opened = made(kind, sampler)
    span = spans.started("process", "x", WORK, context)
    if span is not None:
        span.end()
        assert context is None or span.traceparent.split("-")[1] == context.split("-")[1]
    assert [each.name for each in exporter.get_finished_spans()] == ["process x"] * recorded
    opened.shutdown()
