"""Events of version 1 are read, folded and delivered as version 2, and are not changed on the tape."""

from jobtape.schemas import events, plainjson
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import EVENT_NAMES, JobEvent, upcast
from jobtape.schemas.fold import fold
from jobtape.schemas.job import JobState
from jobtape.schemas.messages.delivered_event import DeliveredEvent, decode_delivered, encode_delivered
from tests.schemas import reference
from tests.schemas.old_events import VERSION_1, as_version_1

TAPE: list[JobEvent] = [events.decode(line) for line in VERSION_1]


def test_sample_has_every_event_in_version_1() -> None:
    written = [plainjson.loads(line) for line in VERSION_1]
    assert {raw["type"].removeprefix(events.TYPE_PREFIX) for raw in written} == set(EVENT_NAMES) - {
        "released",
        "continued",
        "signalled",
    }
    assert {raw["schemaversion"] for raw in written} == {1}
    assert not any("payload_version" in raw["data"].get("order", {}) for raw in written)


def test_version_1_is_read_as_newest() -> None:
    assert {event.schemaversion for event in TAPE} == {upcast.CURRENT_VERSION}
    orders = [event.data.order for event in TAPE if hasattr(event.data, "order")]
    assert len(orders) == 2
    assert {order.payload_version for order in orders} == {1}
    assert [events.decode(events.encode(event)) for event in TAPE] == TAPE
    assert [events.decode(as_version_1(event)) for event in TAPE] == TAPE


def test_version_1_is_folded() -> None:
    (job,) = fold((event, cursor_of(1, n)) for n, event in enumerate(TAPE)).values()
    said = reference.status(TAPE)
    del said["cursor"]
    assert {name: getattr(job, name) for name in said} == said
    assert (job.state, job.run, job.payload_version, job.labels) == (JobState.CANCELLED, 2, 1, {"customer": "42"})


def test_version_1_is_delivered_as_newest() -> None:
    for n, line in enumerate(VERSION_1):
        cursor = cursor_of(1, n)
        delivered = encode_delivered(line.decode(), cursor)
        raw = plainjson.loads(delivered)
        assert raw["schemaversion"] == upcast.CURRENT_VERSION
        assert raw["data"].get("order", {"payload_version": 1})["payload_version"] == 1
        assert decode_delivered(delivered) == DeliveredEvent(TAPE[n], cursor)


def test_newer_version_is_delivered_unchanged() -> None:
    future = {**plainjson.loads(VERSION_1[0]), "schemaversion": 99, "data": {"new": "shape"}}
    delivered = plainjson.loads(encode_delivered(plainjson.dumps(future).decode(), 7))
    assert delivered == {**future, "cursor": 7}
