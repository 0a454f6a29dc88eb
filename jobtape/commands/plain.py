"""Text from elsewhere made harmless for a log line or a terminal."""

import re
from typing import Final

# C0 and C1 controls, DEL, and the two separators that some programs take for line ends.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROLS_BUT_LINES: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """``text`` with every control character written as an escape: it stays on its line and steers no terminal."""
    return _CONTROLS.sub(_escaped, text)


def lines(text: str) -> str:
    """The same, but line ends and tabs stay: for tracebacks."""
    return _CONTROLS_BUT_LINES.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()
