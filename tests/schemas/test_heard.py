"""What subscribers are told can be read again, exactly."""

import pytest

from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import encode
from jobtape.schemas.heard import Heard, hear, tell
from tests.schemas.facts import submitted


def test_there_and_back() -> None:
    event = submitted()
    assert hear(tell(encode(event).decode(), 2**48 + 7)) == Heard(event, 2**48 + 7)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"cursor": 1}', b'{"cursor": "1"}', encode(submitted())])
def test_anything_else_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        hear(body)
