"""Escapes text from outside for log lines and terminals."""

import re
import unicodedata
from typing import Any, Final

# All but visible ASCII and the space: each such character is checked.
_DOUBTFUL: Final = re.compile("[^ -~]")
_DOUBTFUL_BUT_LINES: Final = re.compile("[^ -~\t\n]")


def one_line(text: str) -> str:
    """Return ``text`` with all invisible characters escaped, so that it stays on a line and cannot control a terminal.

    Escaped are control characters, characters that change the writing direction, line and paragraph separators,
    characters without width, and lone surrogates. Letters, marks and spaces of all scripts stay.
    """
    return text if text.isprintable() else _DOUBTFUL.sub(_plain, text)


def lines(text: str) -> str:
    """Return ``text`` escaped as by ``one_line``, but with its line ends and tabs; for tracebacks."""
    return _DOUBTFUL_BUT_LINES.sub(_plain, text.replace("\r\n", "\n"))


def json_text(text: str) -> str:
    """Return a JSON document with the same characters as JSON escapes, which does not change its meaning."""
    return _DOUBTFUL_BUT_LINES.sub(_escaped, text)


def harmless(value: Any) -> str:
    """Return ``value`` as text, escaped by ``one_line``; an empty text for None."""
    return "" if value is None else one_line(str(value))


def _shows(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _plain(found: re.Match[str]) -> str:
    letter = found.group()
    return letter if _shows(letter) else letter.encode("unicode_escape").decode()


def _escaped(found: re.Match[str]) -> str:
    letter = found.group()
    if _shows(letter):
        return letter
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
