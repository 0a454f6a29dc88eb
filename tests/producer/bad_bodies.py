"""Bodies that are refused, and how."""

import json
from typing import Any

MAX_PAYLOAD = 50_000
"""Bytes; the limit that ``test_bad_input`` sets."""


def an_add(**more: Any) -> bytes:
    return json.dumps({"type": "add", "payload": {"x": 1}} | more).encode()


def with_payload(text: str) -> bytes:
    return b'{"type": "keep", "payload": {"data": [%s]}}' % text.encode("utf-8", "surrogatepass")


BODIES: list[tuple[str, bytes, int, str, str | None]] = [
    # what, body, status, kind, pointer of a fault
    ("empty", b"", 400, "not-json", None),
    ("spaces", b"  \n", 400, "not-json", None),
    ("cut off", b'{"type": "add"', 400, "not-json", None),
    ("two values", b"{} {}", 400, "not-json", None),
    ("single quotes", b"{'type': 'add'}", 400, "not-json", None),
    ("not UTF-8", b'{"type": "\xff"}', 400, "not-json", None),
    ("UTF-16", '{"type": "add"}'.encode("utf-16"), 400, "not-json", None),
    ("absurd nesting", b"[" * 20_000 + b"]" * 20_000, 400, "not-json", None),
    ("absurd nesting, cut off", b'{"a":' * 20_000, 400, "not-json", None),
    ("null", b"null", 422, "invalid-submission", ""),
    ("a number", b"1", 422, "invalid-submission", ""),
    ("an array", b"[]", 422, "invalid-submission", ""),
    ("an object that is empty", b"{}", 422, "invalid-submission", "/type"),
    ("no payload", b'{"type": "add"}', 422, "invalid-submission", "/payload"),
    ("payload null", an_add(payload=None), 422, "invalid-submission", "/payload"),
    ("payload an array", an_add(payload=[1]), 422, "invalid-submission", "/payload"),
    ("type a number", an_add(type=1), 422, "invalid-submission", "/type"),
    ("type empty", an_add(type=""), 422, "invalid-submission", "/type"),
    ("type unknown", an_add(type="nope"), 422, "unknown-job-type", "/type"),
    ("type with NUL", an_add(type="a\x00"), 422, "unknown-job-type", "/type"),
    ("type with CR LF", an_add(type="a\r\nb"), 422, "unknown-job-type", "/type"),
    ("type a lone surrogate", an_add(type="\ud800"), 422, "invalid-submission", "/type"),
    ("an unknown field", an_add(priority=9), 422, "invalid-submission", "/priority"),
    ("a name for the reply that no key can have", an_add(reply_to="a.b"), 422, "invalid-submission", "/reply_to"),
    ("an unknown field, a lone surrogate", an_add(**{"\ud800": 1}), 422, "invalid-submission", None),
    ("an unknown field with ~ and /", an_add(**{"a/b~c": 1}), 422, "invalid-submission", "/a~1b~0c"),
    ("queue unknown", an_add(queue="other"), 422, "invalid-submission", "/queue"),
    ("queue with a dot", an_add(queue="a.b"), 422, "invalid-submission", "/queue"),
    ("queue a number", an_add(queue=1), 422, "invalid-submission", "/queue"),
    ("timeout 0", an_add(timeout=0), 422, "invalid-submission", "/timeout"),
    ("timeout negative", an_add(timeout=-1), 422, "invalid-submission", "/timeout"),
    ("timeout too long", an_add(timeout=10_000), 422, "invalid-submission", "/timeout"),
    ("timeout a text", an_add(timeout="30"), 422, "invalid-submission", "/timeout"),
    ("timeout NaN", an_add(timeout=float("nan")), 422, "invalid-submission", "/timeout"),
    ("timeout infinite", an_add(timeout=float("inf")), 422, "invalid-submission", "/timeout"),
    ("timeout enormous", an_add(timeout=10**400), 422, "invalid-submission", "/timeout"),
    ("timeout true", an_add(timeout=True), 422, "invalid-submission", "/timeout"),
    ("labels null", an_add(labels=None), 422, "invalid-submission", "/labels"),
    ("labels a list", an_add(labels=["a"]), 422, "invalid-submission", "/labels"),
    ("label a number", an_add(labels={"a": 1}), 422, "invalid-submission", "/labels/a"),
    ("label with NUL", an_add(labels={"a": "\x00"}), 422, "invalid-submission", "/labels/a"),
    ("label a lone surrogate", an_add(labels={"a": "\ud800"}), 422, "invalid-submission", "/labels/a"),
    ("label too long", an_add(labels={"a": "b" * 257}), 422, "invalid-submission", "/labels/a"),
    ("label name empty", an_add(labels={"": "b"}), 422, "invalid-submission", None),
    ("label name too long", an_add(labels={"a" * 65: "b"}), 422, "invalid-submission", None),
    ("33 labels", an_add(labels={str(n): "" for n in range(33)}), 422, "invalid-submission", "/labels"),
    ("correlation id empty", an_add(correlation_id=""), 422, "invalid-submission", "/correlation_id"),
    ("correlation id too long", an_add(correlation_id="a" * 256), 422, "invalid-submission", "/correlation_id"),
    ("correlation id with NUL", an_add(correlation_id="\x00"), 422, "invalid-submission", "/correlation_id"),
    ("payload: a field missing", an_add(payload={}), 422, "invalid-payload", "/payload/x"),
    ("payload: a field too many", an_add(payload={"x": 1, "z": 1}), 422, "invalid-payload", "/payload/z"),
    ("payload: of another type", an_add(payload={"x": "one"}), 422, "invalid-payload", "/payload/x"),
    (
        "payload: deep in a model",
        an_add(type="order.place", payload={"article": "pen", "pieces": [1, "two"]}),
        422,
        "invalid-payload",
        "/payload/pieces/1",
    ),
    ("payload: NaN", with_payload("NaN"), 422, "invalid-payload", "/payload"),
    ("payload: -Infinity", with_payload("-Infinity"), 422, "invalid-payload", "/payload"),
    ("payload: 1e999", with_payload("1e999"), 422, "invalid-payload", "/payload"),
    ("payload: 2^63", with_payload(str(2**63)), 422, "invalid-payload", "/payload"),
    ("payload: 1000 digits", with_payload("9" * 1000), 422, "invalid-payload", "/payload"),
    ("payload: 10,000 digits", with_payload("9" * 10_000), 400, "not-json", None),
    ("payload: NUL", with_payload('"\\u0000"'), 422, "invalid-payload", "/payload"),
    ("payload: NUL in a key", with_payload('{"a\\u0000": 1}'), 422, "invalid-payload", "/payload"),
    ("payload: a lone surrogate", with_payload('"\\ud800"'), 422, "invalid-payload", "/payload"),
    ("payload: a lone surrogate in a key", with_payload('{"\\udfff": 1}'), 422, "invalid-payload", "/payload"),
    ("payload: 100 levels", with_payload("[" * 100 + "]" * 100), 422, "invalid-payload", "/payload"),
    (
        "payload: one byte too many",
        with_payload('"' + "a" * (MAX_PAYLOAD - 12) + '"'),
        413,
        "payload-too-large",
        "/payload",
    ),
    ("the body too large", with_payload('"' + "a" * 300_000 + '"'), 413, "too-large", None),
]

BATCHES: list[tuple[str, bytes, str, int, str]] = [
    ("empty", b"", "application/json", 400, "not-json"),
    ("an object", an_add(), "application/json", 422, "invalid-batch"),
    ("an empty array", b"[]", "application/json", 422, "invalid-batch"),
    ("too many", b"[" + b",".join([b"1"] * 6) + b"]", "application/json", 422, "invalid-batch"),
    ("lines as JSON", an_add() + b"\n" + an_add(), "application/json", 400, "not-json"),
    ("no line", b"\n\n", "application/x-ndjson", 422, "invalid-batch"),
    ("too many lines", b"1\n" * 6, "application/x-ndjson", 422, "invalid-batch"),
    ("of another type", b"[]", "text/csv", 415, "unsupported-media-type"),
    ("absurd nesting", b"[" * 20_000, "application/json", 400, "not-json"),
]
