"""Text from elsewhere made harmless for a log line or a terminal."""

import re
import unicodedata
from typing import Any, Final

# All but visible ASCII and the space: each of them is looked at.
_DOUBTFUL: Final = re.compile("[^ -~]")
_DOUBTFUL_BUT_LINES: Final = re.compile("[^ -~\t\n]")


def one_line(text: str) -> str:
    """``text`` with everything that cannot be seen written as an escape: it stays on its line and steers no terminal.

    That is control characters, those that change the direction of writing, line and paragraph separators, characters
    without a width, lone surrogates; not letters, marks and spaces of whatever script.
    """
    return text if text.isprintable() else _DOUBTFUL.sub(_plain, text)


def lines(text: str) -> str:
    """Same as ``one_line``, but line ends and tabs stay: for tracebacks."""
    return _DOUBTFUL_BUT_LINES.sub(_plain, text.replace("\r\n", "\n"))


def json_text(text: str) -> str:
    """A JSON document with the same characters written as JSON's escapes: it means the same as before."""
    return _DOUBTFUL_BUT_LINES.sub(_escaped, text)


def harmless(value: Any) -> str:
    """``value`` as ``one_line`` writes it; nothing for None."""
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
