"""Times and places on the tape as the options of the command line have them, for all subcommands alike."""

from datetime import UTC, datetime

from jobtape.cli.errors import WrongUse

_A_TIME = "a time such as 2025-01-31, '2025-01-31 12:00' (of this place) or 2025-01-31T12:00:00Z"


def time_of(option: str, text: str | None) -> str | None:
    """The time that ``option`` says, as the API has it, in UTC; one without a zone is of this place. None for None.

    Raises WrongUse.
    """
    if text is None:
        return None
    if _is_number(text):
        raise WrongUse(f"{option} {text}: a cursor does not do here: write {_A_TIME}")
    return _time(text, f"{option} {text}: write {_A_TIME}")


def point_of(option: str, text: str) -> str:
    """The cursor or the time that ``option`` says, as the API has it. Raises WrongUse."""
    if _is_number(text):
        return text.strip()
    return _time(text, f"{option} {text}: write {_A_TIME}; a cursor is a number, as `jobtape events` shows it")


def place_of(option: str, text: str | None) -> int | str | None:
    """A place on the tape: a cursor (as a number), a time, or ``first``. None for None. Raises WrongUse."""
    if text is None or text == "first":
        return text
    point = point_of(option, text)
    return int(point) if _is_number(point) else point


def _is_number(text: str) -> bool:
    return text.isascii() and text.strip().isdecimal()


def _time(text: str, wrong: str) -> str:
    try:
        # RFC 3339 has small letters, too.
        time = datetime.fromisoformat(text.strip().upper())
        return (time if time.tzinfo else time.astimezone()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise WrongUse(wrong) from None
