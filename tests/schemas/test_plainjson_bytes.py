"""Bytes that are not UTF-8 are not JSON."""

import pytest

from jobtape.schemas import plainjson


@pytest.mark.parametrize("body", [b'{"zz":"\xed\xa0\x80","zz":1}', b'"\xed\xa0\x80"', b'"\xff"', b'["\xc3\x28"]'])
def test_invalid_utf8_is_refused(body: bytes) -> None:
    """The fast parser accepted a raw surrogate after a repeated key, and the value could not be written."""
    with pytest.raises(plainjson.NotJson):
        plainjson.loads(body)


def test_escaped_surrogate_is_read_and_has_fault() -> None:
    assert plainjson.fault(plainjson.loads(b'"\\ud800"')) is not None
