"""The encoding of spans."""

from itertools import product

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util.types import AnyValue

from jobtape.telemetry.otlp import encode

REMOTE = SpanContext(2**128 - 1, 2**64 - 1, is_remote=True, trace_flags=TraceFlags(1))
_STATE = TraceState([("a", "b")])
WITH_STATE = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(1), trace_state=_STATE)
PARENTS = (None, REMOTE, WITH_STATE)
STATUSES = (None, Status(StatusCode.ERROR), Status(StatusCode.ERROR, "why"), Status(StatusCode.OK))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"short": "x", "long": "y" * 100, "längste": "ü" * 20_000, "empty": ""},
        {"one": 1, "negative": -1, "large": 2**63 - 1, "true": True, "false": False, "float": 1.0, "zero": 0},
        {"list": ["x", "y"], "bytes": b"\x00"},
    ],
)
def test_spans_are_encoded_as_opentelemetry_does(attributes: dict[str, AnyValue]) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(resource=Resource.create({"service.name": "x"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracers = [provider.get_tracer("a", "1", "https://schema"), provider.get_tracer("b")]
    for parent, status, kind, links in product(PARENTS, STATUSES, SpanKind, ([], [Link(REMOTE)])):
        context = Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent))
        for tracer in tracers:
            span = tracer.start_span(f"näme {kind}", context, kind, attributes, links)
            tracer.start_span("below", trace.set_span_in_context(span)).end()
            if status is not None:
                span.set_status(status)
            if kind is SpanKind.CLIENT:
                span.add_event("happened", attributes)
            span.end()
    spans = exporter.get_finished_spans()
    made, expected = ExportTraceServiceRequest.FromString(encode(spans)), encode_spans(spans)
    found = [(each.resource, scope) for each in made.resource_spans for scope in each.scope_spans]
    wanted = [(each.resource, scope) for each in expected.resource_spans for scope in each.scope_spans]
    assert found == wanted
    provider.shutdown()
