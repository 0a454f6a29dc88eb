"""What is not UTF-8 is not JSON, however well it hides."""

import pytest

from jobtape.schemas import plainjson


@pytest.mark.parametrize("body", [b'{"zz":"\xed\xa0\x80","zz":1}', b'"\xed\xa0\x80"', b'"\xff"', b'["\xc3\x28"]'])
def test_bytes_that_are_no_text(body: bytes) -> None:
    """A raw surrogate behind a key that comes twice was read, and then could not be written."""
    with pytest.raises(plainjson.NotJson):
        plainjson.loads(body)


def test_an_escaped_surrogate_is_a_fault_of_the_value() -> None:
    assert plainjson.fault(plainjson.loads(b'"\\ud800"')) is not None
