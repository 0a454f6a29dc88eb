"""Events are decoded as they were encoded. Anything else raises UnreadableEvent, and no other error."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas import events, plainjson
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.job import ErrorInfo, Order
from tests.schemas import events_of_a_job as facts
from tests.schemas.strategies import any_event, plain_json

PLAIN: dict[str, Any] = json.loads(events.encode(facts.submitted()))
wild_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def changed(**attributes: Any) -> bytes:
    return json.dumps({**PLAIN, **attributes}).encode()


def read(body: bytes) -> None:
    try:
        events.decode(body)
    except UnreadableEvent as error:
        assert 0 < len(str(error)) <= 700


@given(any_event())
def test_encode_and_decode_round_trip(event: events.JobEvent) -> None:
    assert events.decode(events.encode(event)) == event


@given(any_event())
def test_body_is_cloudevent(event: events.JobEvent) -> None:
    body = json.loads(events.encode(event))
    assert {"specversion", "id", "source", "type"} <= body.keys()
    assert body["specversion"] == "1.0"
    assert all(name.isascii() and name.isalnum() and name == name.lower() and len(name) <= 20 for name in body)
    assert 0 < len(body["id"]) <= 255 and body["source"]
    assert None not in body.values()
    assert body["time"].endswith("Z")


@given(st.binary(max_size=200))
def test_decode_of_any_bytes(body: bytes) -> None:
    read(body)


@given(wild_json)
def test_decode_of_any_json(value: Any) -> None:
    read(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(st.sampled_from(sorted(PLAIN)), wild_json)
def test_decode_of_any_attribute_value(attribute: str, value: Any) -> None:
    read(changed(**{attribute: value}))


@given(st.sampled_from(sorted(PLAIN["data"]["order"])), wild_json)
def test_decode_of_any_order_value(field: str, value: Any) -> None:
    order = {**PLAIN["data"]["order"], field: value}
    read(changed(data={**PLAIN["data"], "order": order}))


@given(any_event(), st.data())
def test_decode_of_truncated_event(event: events.JobEvent, data: st.DataObject) -> None:
    body = events.encode(event)
    with pytest.raises(UnreadableEvent):
        events.decode(body[: data.draw(st.integers(0, len(body) - 1))])


@given(any_event(), st.dictionaries(st.text("xyz", min_size=1, max_size=5), plain_json, max_size=3))
def test_unknown_fields_are_ignored(event: events.JobEvent, more: dict[str, Any]) -> None:
    body = json.loads(events.encode(event))
    body = {**more, **body, "data": {**more, **body["data"]}}
    assert events.parse(body) == event


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
        (b"[]", "a JSON list, not an object"),
        (b"{}", "no field `type`: not a job"),
        (changed(type="jobtape.job.paused"), "jobtape.job.paused"),
        (changed(type="jobtape.job." + "x" * 100_000), "jobtape.job.xxx"),
        (changed(schemaversion=3), "schemaversion 3 is newer than 2: update Jobtape"),
        (changed(schemaversion="x" * 100_000), "is no version"),
        (changed(schemaversion="2"), "is no version"),
        (changed(schemaversion=2.0), "is no version"),
        (changed(specversion="2.0"), "specversion"),
        (changed(subject="no job"), "subject"),
        (changed(id="x" * 256), "id"),
        (changed(time="0001-01-01T00:00:00+14:00"), "time"),
        (changed(time="9999-12-31T23:59:59-14:00"), "time"),
        (changed(time="2026-01-01T00:00:00"), "time"),
        (changed(data=None), "data"),
        (changed(data={**PLAIN["data"], "run": 0}), "data.run"),
        (changed(data={**PLAIN["data"], "run": 2**31}), "data.run"),
        (changed(subject="\ud800"), "subject: a lone surrogate"),
        (changed(data={**PLAIN["data"], "order": {"payload": {"a": ["\x00"]}}}), "data.order.payload.a[0]: a NUL"),
    ],
)
def test_invalid_event_is_refused_with_reason(body: bytes, says: str) -> None:
    with pytest.raises(UnreadableEvent) as refused:
        events.decode(body)
    assert says in str(refused.value)
    assert len(str(refused.value)) <= 700


@pytest.mark.parametrize("where", ["payload", "result"])
def test_deepest_accepted_payload_is_readable(where: str) -> None:
    deep: Any = 1
    for _ in range(plainjson.MAX_DEPTH):
        deep = {"a": deep}
    assert plainjson.fault(deep) is None and plainjson.fault({"a": deep}) is not None
    event: events.JobEvent = facts.submitted(order=facts.ORDER.model_copy(update={"payload": deep}))
    if where == "result":
        done = facts.Execution("e").succeeded()
        event = done.model_copy(update={"data": done.data.model_copy(update={"result": deep})})
    assert events.decode(events.encode(event)) == event


@given(st.text(st.characters(exclude_categories=[])))
def test_any_exception_text_is_readable(said: str) -> None:
    failed = facts.Execution("e").failed()
    error = ErrorInfo(type=said, message=said, traceback=said)
    event = failed.model_copy(update={"data": failed.data.model_copy(update={"error": error})})
    assert events.decode(events.encode(event)) == event


@given(
    work=any_event().filter(lambda event: isinstance(event, events.WorkEvent)),
    result=plain_json,
    execution=st.uuids(),
    time=st.datetimes(timezones=st.just(UTC)),
    duration=st.floats(0, 1e6),
)
def test_encoded_success_is_that_of_checked_event(
    work: events.WorkEvent, result: Any, execution: UUID, time: datetime, duration: float
) -> None:
    data = {"execution": execution.hex, "worker": "w", "result": result, "started_at": time, "duration": duration}
    same = {"job_type": work.data.job_type, "run": work.data.run, "attempt": work.data.attempt}
    checked = events.Succeeded(
        id=f"{work.subject}/{work.data.run}/{work.data.attempt}/succeeded/{execution.hex}",
        source="here",
        subject=work.subject,
        time=time,
        correlationid=work.correlationid,
        causationid=work.id,
        traceparent=work.traceparent,
        data=events.SucceededData.model_validate({**data, **same}),
    )
    direct = events.encoded_success(
        work,
        source="here",
        worker="w",
        execution=execution.hex,
        started_at=time,
        duration=duration,
        result=result,
        time=time,
        traceparent=work.traceparent,
    )
    encoded = events.encoded(checked)
    assert direct._replace(body=b"") == encoded._replace(body=b"")
    assert json.loads(direct.body) == json.loads(encoded.body)


def test_longest_event_id_is_accepted() -> None:
    longest = facts.Execution("x" * 64, attempt=2**31 - 1, run=2**31 - 1).progressed(2**31 - 1)
    assert len(longest.id) <= 255


def test_submitted_twice_has_same_event_id() -> None:
    assert facts.submitted(0).id == facts.submitted(9).id == f"{facts.JOB}/1/submitted"


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_infinite_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Order(type="add", payload={}, queue="default", timeout=timeout)
