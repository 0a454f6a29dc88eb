"""``Prefer: wait=N`` (RFC 7240): how long a client would rather wait for an outcome than ask again."""

import re
from typing import Final

from fastapi import Request

HEADER: Final = "Prefer"
APPLIED: Final = "Preference-Applied"

_LONGEST: Final = 8192
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PREFERENCE: Final = re.compile(rf"\s*({_WORD})(?:\s*=\s*({_WORD}|{_QUOTED})?)?\s*(?:;|$)")
_ELEMENT: Final = re.compile(rf"(?:{_QUOTED}|[^,\"])+")


def wait_of(request: Request, longest: int) -> int | None:
    """The seconds to wait, ``longest`` at most; None when nothing, or nothing that makes sense, is said of it.

    As the RFC has it: of several the first counts, and what is not understood is as if it were not there.
    """
    header = ",".join(request.headers.getlist(HEADER))
    if longest <= 0 or len(header) > _LONGEST:
        return None
    for element in _ELEMENT.findall(header):
        preference = _PREFERENCE.match(element)
        if preference is not None and preference[1].lower() == "wait":
            seconds = (preference[2] or "").strip('"')
            return min(int(seconds[:10]), longest) if seconds.isascii() and seconds.isdigit() else None
    return None


def applied(seconds: int) -> dict[str, str]:
    """The header that says so."""
    return {APPLIED: f"wait={seconds}"}
