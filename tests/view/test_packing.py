"""Packed events are small, and unpack to exactly what was packed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.events import encode
from jobtape.view.packing import MOST, pack, unpack
from tests.view.samples import submitted, succeeded

KEPT = (
    "01c3131fc0704d4eb43431d53548042634736084ea5a800850d4420124c610a183196125c01a18e80e94d822682ad4e1305f1918831297a1"
    "112471d1356e135340914e4cf44254226258a90218a304a239373113940891e3181e61c658220c58c3d70200"
)
"""The event ``submitted(1)`` as a database may have it: it must be readable with any later code."""


@given(st.text())
def test_text_is_unpacked_unchanged(text: str) -> None:
    assert unpack(pack(text)) == text


@pytest.mark.parametrize("length", [MOST - 1, MOST, MOST + 1, 1_000_000])
def test_long_text_is_unpacked_unchanged(length: int) -> None:
    text = "aé€𝄞"[: length % 4] + "x" * (length - length % 4)
    assert unpack(pack(text)) == text


def test_packed_event_takes_a_third() -> None:
    order = submitted(1)
    for event in (order, succeeded(order, result=3)):
        text = encode(event).decode()
        assert len(pack(text)) < len(text) / 3


def test_event_packed_by_earlier_code_is_read() -> None:
    assert unpack(bytes.fromhex(KEPT)) == encode(submitted(1)).decode()


@pytest.mark.parametrize("packed", [b"", b"\x07{}"])
def test_unknown_format_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="unknown format"):
        unpack(packed)
