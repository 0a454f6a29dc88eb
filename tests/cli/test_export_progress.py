"""How far an export is, whose cursors begin far above 0."""

from jobtape.cli.tape.export import share
from jobtape.schemas.cursor import cursor_of


def test_from_nothing_to_all() -> None:
    begin, end = cursor_of(1, 0) - 1, cursor_of(1, 99)
    assert [share(begin, cursor, end) for cursor in (begin, cursor_of(1, 49), end)] == [0.0, 0.5, 1.0]
    assert share(end, end, end) == 0.0
