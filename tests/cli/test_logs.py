"""Tests the format of log lines: each record is one line."""

import logging
import sys

from jobtape.cli.escaping import lines, one_line
from jobtape.cli.log_output import OneLine


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    """Return a log record. With ``error`` it contains the exception that is being handled."""
    info = sys.exc_info() if error else None
    return logging.LogRecord("any", logging.WARNING, __file__, 1, message, arguments, info)


def test_log_line_has_time_level_part_and_message() -> None:
    made = record("lost %s", "one")
    made.created = 1_700_000_000.25
    assert OneLine("worker").format(made) == "2023-11-14T22:13:20.250Z warning worker lost one"


def test_log_line_escapes_line_ends() -> None:
    line = OneLine("api").format(record("message %s", "a\r\nb\x1b[2J\u2028c\x85"))
    assert line.endswith(r"message a\r\nb\x1b[2J\u2028c\x85")


def test_log_line_contains_traceback() -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        line = OneLine("api").format(record("failed", error=True))
    assert "\n" not in line
    assert r"ValueError: no\nway" in line


def test_terminal_text_is_escaped() -> None:
    assert one_line("\ttab ümlaut 漢") == r"\ttab ümlaut 漢"
    assert lines("a\r\n\tb\x07\rc") == "a\n\tb\\x07\\rc"
