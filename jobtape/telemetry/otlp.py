"""Sends spans by OTLP, encoded here: OpenTelemetry's encoder makes objects of all values, which took half of the
processor time of a span (46 microseconds).

The format is that of ``opentelemetry/proto/trace/v1/trace.proto``. What our own spans never have (events, links with
attributes, lists as values) is left to OpenTelemetry's encoder, span by span.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

_LARGE: Final = 1 << 20
"""Bytes of a request above which OpenTelemetry's exporter decides whether it is too large."""
_KEPT: Final = 32
"""Characters of a value that is likely to come again, and is kept encoded. Ids are longer."""
_DOUBLE: Final = struct.Struct("<d")
_TIMES: Final = struct.Struct("<BQBQ")
_FLAGS: Final = struct.Struct("<HI")
_INT_64: Final = (1 << 64) - 1


class Exporter(OTLPSpanExporter):
    """OpenTelemetry's exporter with this encoding; it reads its variables and repeats requests."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        body = encode(spans)
        if self._shutdown or len(body) > _LARGE:
            return super().export(spans)
        return SpanExportResult.SUCCESS if self._client.export(body).success else SpanExportResult.FAILURE


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Return an ExportTraceServiceRequest with ``spans``."""
    groups: dict[Any, list[ReadableSpan]] = {}
    for span in spans:
        groups.setdefault((id(span.resource), span.instrumentation_scope), []).append(span)
    return b"".join(_resource_spans(group) for group in groups.values())


def _resource_spans(spans: list[ReadableSpan]) -> bytes:
    """Return the ResourceSpans of spans with the same resource and scope, as a field of the request."""
    (resource,) = encode_spans(spans[:1]).resource_spans
    (scope,) = resource.scope_spans
    del scope.spans[:], resource.scope_spans[:]
    encoded = b"".join([scope.SerializeToString(), *map(_span, spans)])
    return _field(0x0A, resource.SerializeToString() + _field(0x12, encoded))


def _span(span: ReadableSpan) -> bytes:
    """Return a span as a field of ScopeSpans."""
    context, parent, status, attributes = span.context, span.parent, span.status, span.attributes or {}
    parts = [
        b"\x0a\x10%b\x12\x08%b" % (context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")),
        b"" if parent is None else b"\x22\x08" + parent.span_id.to_bytes(8, "big"),
        _text(0x2A, span.name),
        b"\x30%c" % (span.kind.value + 1),
        _TIMES.pack(0x39, span.start_time or 0, 0x41, span.end_time or 0),
    ]
    if span.events or span.links or span.dropped_attributes or context.trace_state or status.description:
        return _left_to_opentelemetry(span)
    for key, value in attributes.items():
        kind = type(value)
        if kind is str and len(value) > _KEPT:  # type: ignore[arg-type]
            parts.append(_field(0x4A, _key(key) + _field(0x12, _text(0x0A, value))))  # type: ignore[arg-type]
        elif kind in (str, bool, int, float):
            parts.append(_attribute(key, value))
        else:
            return _left_to_opentelemetry(span)
    parts.append(b"\x7a\x02\x18%c" % status.status_code.value if status.status_code.value else b"\x7a\x00")
    # 0x100: it is known whether the parent is of another process. 0x200: it is.
    parts.append(_FLAGS.pack(0x0185, 0x300 if parent is not None and parent.is_remote else 0x100))
    return _field(0x12, b"".join(parts))


def _left_to_opentelemetry(span: ReadableSpan) -> bytes:
    encoded = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    return _field(0x12, encoded.SerializeToString())


@lru_cache(512, typed=True)
def _attribute(key: str, value: Any) -> bytes:
    """Return an attribute as a field of a span. ``value``: a string, a bool, an integer or a float."""
    if isinstance(value, str):
        encoded = _text(0x0A, value)
    elif isinstance(value, bool):
        encoded = b"\x10%c" % value
    elif isinstance(value, int):
        encoded = b"\x18" + _varint(value & _INT_64)
    else:
        encoded = b"\x21" + _DOUBLE.pack(value)
    return _field(0x4A, _key(key) + _field(0x12, encoded))


@lru_cache(512)
def _key(key: str) -> bytes:
    return _text(0x0A, key)


def _text(tag: int, text: str) -> bytes:
    return _field(tag, text.encode(errors="replace"))


def _field(tag: int, content: bytes) -> bytes:
    size = len(content)
    return b"%c%c%b" % (tag, size, content) if size < 0x80 else b"%c%b%b" % (tag, _varint(size), content)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
