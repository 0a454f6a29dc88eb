"""What subscribers are told can be read again, exactly."""

import pytest

from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import encode
from jobtape.schemas.heard import Heard, hear, tell
from tests.schemas.facts import JOB, Execution, submitted


def test_what_it_says_of_the_job() -> None:
    order = Heard(submitted(), 7)
    assert (order.job_id, order.job_type, order.name) == (JOB, "add", "submitted")
    assert (order.result, order.error, order.time) == (None, None, order.event.time)
    worker = Execution("w")
    assert Heard(worker.succeeded(), 8).result == "by w"
    failed = Heard(worker.failed(), 9)
    assert failed.error is not None
    assert (failed.error.message, failed.result, failed.id) == ("w gave up", None, failed.event.id)


def test_there_and_back() -> None:
    event = submitted()
    assert hear(tell(encode(event).decode(), 2**48 + 7)) == Heard(event, 2**48 + 7)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"cursor": 1}', b'{"cursor": "1"}', encode(submitted())])
def test_anything_else_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        hear(body)
