"""``fault`` accepts exactly the JSON that every component can carry, and names the place of a fault."""

import json
import math
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas import plainjson
from tests.schemas.strategies import plain_json

any_text = st.text(st.characters(exclude_categories=[]), max_size=20)
any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.binary(max_size=3) | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(any_text | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@given(plain_json)
def test_plain_value_round_trip(value: Any) -> None:
    assert plainjson.fault(value) is None
    assert plainjson.loads(plainjson.dumps(value)) == value
    assert json.loads(plainjson.dumps(value)) == value


@given(any_value)
def test_value_without_fault_can_be_written(value: Any) -> None:
    if plainjson.fault(value) is None:
        assert plainjson.loads(plainjson.dumps(value)) == value


@given(st.binary(max_size=100))
def test_loads_takes_any_bytes(body: bytes) -> None:
    try:
        value = plainjson.loads(body)
    except plainjson.NotJson as error:
        assert str(error)
    else:
        plainjson.fault(value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "value: NaN and Infinity"),
        ({"a": [0, {"b": math.inf}]}, "a[1].b: NaN and Infinity"),
        ({"a": "x\x00y"}, "a: a NUL"),
        ({"a": {"\x00": 1}}, "a: a key with a NUL"),
        ({"a": "\ud800"}, "a: a lone surrogate"),
        ({"\udfff": 1}, "value: a key with a lone surrogate"),
        ({"n": 2**63}, "n: an integer beyond 64 bits"),
        ({"n": -(2**63) - 1}, "n: an integer beyond 64 bits"),
        ([b"x"], "[0]: bytes is no JSON"),
        ({"t": (1,)}, "t: tuple is no JSON"),
        ({1: 2}, "value: a key of type int"),
        (nested(65), "[0][0]"),
        ({"k" * 5000: {"l": b""}}, "k" * 80 + ".l: bytes"),
    ],
)
def test_fault_names_its_place(value: Any, says: str) -> None:
    reason = plainjson.fault(value)
    assert reason is not None and reason.startswith(says)
    assert len(reason) < 300
    assert (plainjson.fault(value, "payload") or "").startswith("payload")


def test_limits_are_accepted() -> None:
    assert plainjson.fault([2**63 - 1, -(2**63), True, nested(62), 1e308]) is None
    assert plainjson.fault(nested(64)) is None


def test_fault_of_long_key_above_long_list_is_cheap() -> None:
    """Texts of the places of all items would have 40 GB."""
    before = time.process_time()
    assert plainjson.fault({"k" * 400_000: [0] * 100_000}) is None
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b"1" * 5_000,
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"{'a': 1}",
        b"[1,]",
        b"{} {}",
    ],
)
def test_invalid_json_is_refused(body: bytes) -> None:
    with pytest.raises(plainjson.NotJson):
        plainjson.loads(body)


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"\\ud800": 1}', b"NaN", b"-Infinity", b"1e999", b"9" * 30])
def test_nearly_json_is_read_and_has_fault(body: bytes) -> None:
    assert plainjson.fault(plainjson.loads(body)) is not None
    assert not plainjson.is_surely_storable(b'{"x": [1, %s]}' % body)


@given(plain_json)
def test_text_without_escapes_exponents_and_long_numbers_is_clean(value: Any) -> None:
    text = plainjson.dumps(value)
    assert plainjson.is_surely_storable(text) or b"\\u" in text or re.search(rb"\d[eE]|\d{19}|NaN|Infinity", text)


PIECES = r"""
{ } [ ] , : " \ \u0000 \ud800 \ud83d\ude00 NaN Infinity - 1 9223372036854775807 9223372036854775808 1e3 1E+400 -1.5e999
0.1e-400 1e999999 x é 한 e000 true null
"""
json_pieces = st.sampled_from([*PIECES.split(), " ", "\xed\xa0\x80", "\xff"])


@given(st.lists(json_pieces, max_size=12).map("".join), any_value)
def test_clean_text_has_no_fault(pieces: str, value: Any) -> None:
    bodies = [
        pieces.encode("utf-8", "surrogatepass"),
        pieces.encode("latin-1", "replace"),
        f'{{"a":[{pieces}]}}'.encode(),
    ]
    bodies += [json.dumps(value, default=str, skipkeys=True).encode()]
    for body in bodies:
        try:
            fault = plainjson.fault(plainjson.loads(body))
        except plainjson.NotJson:
            continue
        assert fault is None or not plainjson.is_surely_storable(body)


@pytest.mark.parametrize("levels", [64, 65])
def test_deep_text_is_not_clean(levels: int) -> None:
    assert plainjson.is_surely_storable(json.dumps(nested(levels)).encode()) == (levels == 64)


@given(any_text)
def test_carried_text_has_no_fault(text: str) -> None:
    storable = plainjson.storable(text)
    assert plainjson.fault(storable) is None
    if plainjson.fault(text) is None:
        assert storable == text
