"""Tests the times and positions that options accept."""

import time
from collections.abc import Iterator

import pytest

from jobtape.cli.errors import WrongUse
from jobtape.cli.values import point_of, position_of, time_of
from tests.cli.installation import Installation


@pytest.fixture(autouse=True)
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a local time nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-28", "2026-11-27T15:00:00+00:00"),
        ("2026-11-28 12:30", "2026-11-28T03:30:00+00:00"),
        ("2026-11-28T12:30:15.5", "2026-11-28T03:30:15.500000+00:00"),
        ("2026-11-28T12:00:00Z", "2026-11-28T12:00:00+00:00"),
        ("2026-11-28t12:00:00z", "2026-11-28T12:00:00+00:00"),
        ("2026-11-28 12:00+02:00", "2026-11-28T10:00:00+00:00"),
        (" 2026-11-28\n", "2026-11-27T15:00:00+00:00"),
    ],
)
def test_time_is_converted_to_utc(text: str, utc: str) -> None:
    assert time_of("--since", text) == point_of("--as-of", text) == position_of("--until", text) == utc


def test_position_is_cursor_time_or_first() -> None:
    assert point_of("--as-of", "281474976710700") == "281474976710700"
    assert position_of("--since", "281474976710700") == 281474976710700
    assert position_of("--since", "first") == "first"
    assert position_of("--until", None) is None


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "0001-01-01", "12:00", "2026-11-28T12:00:00+99:00"])
def test_malformed_time_is_refused(text: str) -> None:
    for read in (time_of, point_of, position_of):
        with pytest.raises(WrongUse, match=r"--since .*write a time such as"):
            read("--since", text)


def test_time_option_refuses_a_cursor() -> None:
    with pytest.raises(WrongUse, match="--since 7: a cursor is not possible here"):
        time_of("--since", "7")


@pytest.mark.parametrize("command", [("redrive", "--yes"), ("shadow",), ("replay", "audit"), ("export", "file")])
def test_all_commands_accept_the_same_times(installation: Installation, command: tuple[str, ...]) -> None:
    """No API listens, so a call whose options are accepted ends with code 1."""
    done = installation.run(*command, "--since", "2026-11-28", "--until", "soon")
    assert done.returncode == 2
    assert "--until soon: write a time such as" in done.stderr
    done = installation.run(*command, "--since", "2026-11-28", "--until", "2026-11-29 12:00")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
