"""A delivered event is decoded unchanged."""

import pytest

from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import encode
from jobtape.schemas.messages.delivered_event import DeliveredEvent, decode_delivered, encode_delivered
from tests.schemas.events_of_a_job import JOB, Execution, submitted


def test_properties_of_delivered_event() -> None:
    order = DeliveredEvent(submitted(), 7)
    assert (order.job_id, order.job_type, order.name) == (JOB, "add", "submitted")
    assert (order.result, order.error, order.time) == (None, None, order.event.time)
    worker = Execution("w")
    assert DeliveredEvent(worker.succeeded(), 8).result == "by w"
    failed = DeliveredEvent(worker.failed(), 9)
    assert failed.error is not None
    assert (failed.error.message, failed.result, failed.id) == ("w gave up", None, failed.event.id)


def test_encode_and_decode_round_trip() -> None:
    event = submitted()
    assert decode_delivered(encode_delivered(encode(event).decode(), 2**48 + 7)) == DeliveredEvent(event, 2**48 + 7)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"cursor": 1}', b'{"cursor": "1"}', encode(submitted())])
def test_decode_refuses_other_bodies(body: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        decode_delivered(body)
