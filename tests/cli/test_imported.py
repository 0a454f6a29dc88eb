"""Tests how an import compares a file with the view."""

from collections.abc import Sequence

import pytest

from jobtape.broker.stream_reader import TapeMessage
from jobtape.cli.tape import import_
from jobtape.cli.tape.import_ import _windows, lines_in_view
from jobtape.consumer.folding import fold_batch
from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import encode
from jobtape.schemas.messages.tape_file import TapeLine, marked
from jobtape.view.store import Store
from tests.view.samples import begin, commit, submitted

FILE = "the-export"
BODIES = [encode(submitted(n)) for n in range(6)]
LINES = [TapeLine(n, body, plainjson.loads(body)) for n, body in enumerate(BODIES, 1)]
LINES[2] = TapeLine(3, b"no event", None)
OTHER = encode(submitted(99))


def on_tape(*lines: int) -> list[bytes]:
    return [marked(LINES[n - 1], FILE) for n in lines]


def fold(store: Store, bodies: Sequence[bytes]) -> None:
    begin(store)
    if bodies:
        messages = [TapeMessage(offset, body, "event") for offset, body in enumerate(bodies)]
        assert commit(store, fold_batch(messages, 1, store.jobs))


@pytest.mark.parametrize(
    ("tape", "done"),
    [
        ([], 0),
        (on_tape(1, 2), 2),
        (on_tape(1, 2, 3), 3),
        (on_tape(1, 2, 3, 4, 5, 6), 6),
        ([*on_tape(1, 2), OTHER, *on_tape(3)], 3),
        ([*on_tape(1, 2, 3, 4, 5, 6), OTHER], 6),
    ],
    ids=["nothing", "a part", "no event last", "all", "another event between", "another event after"],
)
def test_import_continues_after_imported_lines(store: Store, tape: list[bytes], done: int) -> None:
    fold(store, tape)
    assert lines_in_view(store, FILE, LINES) == done


@pytest.mark.parametrize(
    ("tape", "why"),
    [
        (on_tape(1, 2, 4, 5), "up to line 2 only .* start again"),
        (on_tape(1, 3, 4), "up to line 1 only"),
        (on_tape(2), "up to line 0 only"),
        (on_tape(1, 2, 3, 2), "up to line 3 only"),
        (on_tape(1, 2, 3, 4, 5, 6, 6), "up to line 6 only"),
        ([OTHER], "has jobs already"),
        ([OTHER, *on_tape(1)], "has jobs already"),
    ],
    ids=["no event missing", "event missing", "first missing", "twice", "last twice", "others", "others before"],
)
def test_import_refuses_view_that_differs_from_file(store: Store, tape: list[bytes], why: str) -> None:
    fold(store, tape)
    with pytest.raises(JobtapeError, match=why):
        lines_in_view(store, FILE, LINES)


def test_window_is_limited_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_, "WINDOW", 4)
    monkeypatch.setattr(import_, "WINDOW_BYTES", 100)
    sizes = [10, 10, 10, 10, 10, 99, 99, 10, 200, 10]
    lines = [TapeLine(n, b"x" * size, None) for n, size in enumerate(sizes, 1)]
    assert [[line.number for line in window] for window in _windows(lines)] == [[1, 2, 3, 4], [5, 6], [7, 8], [9], [10]]
