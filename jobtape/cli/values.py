"""Reads the values of options and arguments: times, positions on the tape, labels and payloads."""

import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobtape.cli.errors import WrongUse

_A_TIME = "a time such as 2025-01-31, '2025-01-31 12:00' (local time) or 2025-01-31T12:00:00Z"


def time_of(option: str, text: str) -> str:
    """Return the time in ``text`` in UTC, as the API expects it. A time without a zone is local time.

    ``option`` is named in error messages. Raises WrongUse.
    """
    if _is_number(text):
        raise WrongUse(f"{option} {text}: a cursor is not possible here: write {_A_TIME}")
    return _time(text, f"{option} {text}: write {_A_TIME}")


def point_of(option: str, text: str) -> str:
    """Return the cursor or time in ``text``, as the API expects it. Raises WrongUse."""
    if _is_number(text):
        return text.strip()
    return _time(text, f"{option} {text}: write {_A_TIME}; a cursor is a number, as `jobtape events` shows it")


def position_of(option: str, text: str | None) -> int | str | None:
    """Return a position on the tape: a cursor as a number, a time, or ``first``; None for None. Raises WrongUse."""
    if text is None or text == "first":
        return text
    point = point_of(option, text)
    return int(point) if _is_number(point) else point


def seconds_of(option: str, text: str) -> float:
    """Return the seconds in a length of time such as ``90d``, ``12h``, ``30m``, ``45s`` or ``45``. Raises WrongUse."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", text.strip(), re.ASCII)
    if found is None:
        raise WrongUse(f"{option} {text}: write a length of time such as 90d, 12h, 30m or 45s")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def label_of(text: str) -> str:
    """Return the label ``name=value`` as ``name:value``, which the API's filters take. Raises WrongUse."""
    name, equals, value = text.partition("=")
    if not (name and equals) or ":" in name:
        raise WrongUse(f"--label {text}: write it as name=value")
    return f"{name}:{value}"


def labels_of(labels: Iterable[str] | None) -> dict[str, str]:
    """Return the values of labels ``name:value`` by their names."""
    return {name: value for name, _, value in (label.partition(":") for label in labels or ())}


def values_of(option: str, values: Iterable[str] | None) -> dict[str, str]:
    """Return the values ``path=value`` by their paths. ``option`` is named in error messages. Raises WrongUse."""
    found: dict[str, str] = {}
    for text in values or ():
        path, equals, value = text.partition("=")
        if not equals:
            raise WrongUse(f"{option} {text}: write it as path=value, such as customer.id=42")
        found[path] = value
    return found


def given(**values: Any) -> dict[str, Any]:
    """Return the values that were given: neither None nor empty. 0 counts as given."""
    return {name: value for name, value in values.items() if value is not None and value not in ("", [], {})}


def payload_of(text: str, what: str = "the payload") -> dict[str, Any]:
    """Return the JSON object in ``text``, in a file (``@FILE``) or on stdin (``-``). ``what``: for error messages.

    Raises WrongUse.
    """
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"cannot read {what}: {error}") from None
    try:
        payload = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise WrongUse(
            f"{what} is not JSON ({error}): write it as '{{\"x\": 1}}', as @file.json, or - for stdin"
        ) from None
    if not isinstance(payload, dict):
        raise WrongUse(f"{what} is JSON, but not a JSON object: write it as '{{\"x\": 1}}'")
    return payload


def _is_number(text: str) -> bool:
    return text.isascii() and text.strip().isdecimal()


def _time(text: str, wrong: str) -> str:
    try:
        # RFC 3339 also allows lower-case letters.
        time = datetime.fromisoformat(text.strip().upper())
        return (time if time.tzinfo else time.astimezone()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise WrongUse(wrong) from None
