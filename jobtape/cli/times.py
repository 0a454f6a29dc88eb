"""Reads times and positions on the tape from the options of the command line."""

from datetime import UTC, datetime

from jobtape.cli.errors import WrongUse

_A_TIME = "a time such as 2025-01-31, '2025-01-31 12:00' (local time) or 2025-01-31T12:00:00Z"


def time_of(option: str, text: str | None) -> str | None:
    """Return the time in ``text`` in UTC, as the API expects it; None for None. A time without a zone is local time.

    ``option`` is named in error messages. Raises WrongUse.
    """
    if text is None:
        return None
    if _is_number(text):
        raise WrongUse(f"{option} {text}: a cursor is not possible here: write {_A_TIME}")
    return _time(text, f"{option} {text}: write {_A_TIME}")


def point_of(option: str, text: str) -> str:
    """Return the cursor or time in ``text``, as the API expects it. Raises WrongUse."""
    if _is_number(text):
        return text.strip()
    return _time(text, f"{option} {text}: write {_A_TIME}; a cursor is a number, as `jobtape events` shows it")


def place_of(option: str, text: str | None) -> int | str | None:
    """Return a position on the tape: a cursor as a number, a time, or ``first``; None for None. Raises WrongUse."""
    if text is None or text == "first":
        return text
    point = point_of(option, text)
    return int(point) if _is_number(point) else point


def _is_number(text: str) -> bool:
    return text.isascii() and text.strip().isdecimal()


def _time(text: str, wrong: str) -> str:
    try:
        # RFC 3339 also allows lower-case letters.
        time = datetime.fromisoformat(text.strip().upper())
        return (time if time.tzinfo else time.astimezone()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise WrongUse(wrong) from None
