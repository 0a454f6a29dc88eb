"""JSON that every part of the way can carry: AMQP, SQLite, PostgreSQL and clients in any language.

PostgreSQL's text holds neither NUL nor lone surrogates; integers over 64 bits lose digits in most languages; NaN and
the infinities are no JSON (RFC 8259).
"""

import json
import math
from typing import Any

from pydantic_core import from_json, to_json

INT_LIMIT = 2**63
DEPTH_LIMIT = 64
PLACE_LENGTH = 120
SHORT = 2_000
MARK = b"\xef\xbb\xbf"
"""The UTF-8 byte order mark."""


class NotJson(ValueError):
    """The bytes are not JSON at all (RFC 8259), or nested absurdly deep."""


def loads(body: bytes) -> Any:
    """The value of a JSON text. Raises NotJson. What is JSON but cannot be carried is for ``fault``."""
    try:
        return from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError as error:
        try:
            # The fast parser refuses a lone surrogate written as an escape as if it were bad syntax; it is a fault of a
            # value. Given bytes, json.loads would also take UTF-16 and UTF-32, which are not JSON between systems.
            return json.loads(body.decode())
        except (ValueError, RecursionError):
            raise NotJson(str(error)) from None


def loads_sent(body: bytes) -> Any:
    """The value of a JSON text that a client sent, or a file has. Editors and shells, mostly on Windows, put a byte
    order mark before it, which RFC 8259 (section 8.1) lets a reader pass over. Raises NotJson.

    What stands on the tape has none: it is read by other programs too.
    """
    return loads(body.removeprefix(MARK))


def dumps(value: Any) -> bytes:
    """The JSON text of a plain value, UTF-8, without spaces."""
    return to_json(value, inf_nan_mode="constants")


def short(value: Any, most: int = SHORT) -> Any:
    """A plain value to show: itself, or the beginning of its text when that is longer than ``most`` bytes."""
    text = dumps(value)
    return value if len(text) <= most else f"{text[:most].decode(errors='ignore')}…"


def fault(value: Any, at: str = "", *, depth_limit: int = DEPTH_LIMIT) -> str | None:
    """What makes a parsed JSON value impossible to carry, with its place; None when all is well."""
    stack: list[tuple[Any, _Place | None, int]] = [(value, None, 0)]
    while stack:
        item, place, depth = stack.pop()
        if (reason := _own_fault(item, depth, depth_limit)) is not None:
            return f"{_place_text(place, at) or 'value'}: {reason}"
        if isinstance(item, dict):
            stack.extend((child, (place, key), depth + 1) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend((child, (place, i), depth + 1) for i, child in enumerate(item))
    return None


def finite(value: Any) -> bool:
    """Whether no NaN and no infinity is in a value of dicts and sequences; what else is in it does not matter."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return False
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
    return True


def carried(text: str) -> str:
    """``text`` with U+FFFD for whatever cannot be carried."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# Where an item stands: its parent's place and its own key or index. Written out only for a fault: a text for every item
# would be the square of the body's size when a long key stands above a long list.
_Place = tuple[Any, str | int]


def _place_text(place: _Place | None, at: str) -> str:
    steps: list[str | int] = []
    while place is not None:
        place, step = place
        steps.append(step)
    text = at
    for step in reversed(steps):
        text += f"[{step}]" if isinstance(step, int) else f".{step[:80]}" if text else step[:80]
        if len(text) > PLACE_LENGTH:
            return text[:PLACE_LENGTH] + "…"
    return text


def _own_fault(item: Any, depth: int, depth_limit: int) -> str | None:
    if depth > depth_limit:
        return f"nested deeper than {depth_limit} levels"
    if isinstance(item, str):
        return _text_fault(item)
    if item is None or isinstance(item, bool | list):
        return None
    if isinstance(item, int):
        return None if -INT_LIMIT <= item < INT_LIMIT else "an integer beyond 64 bits; send it as a string"
    if isinstance(item, float):
        return None if math.isfinite(item) else "NaN and Infinity are no JSON; send null or a string"
    if isinstance(item, dict):
        for key in item:
            if not isinstance(key, str):
                return f"a key of type {type(key).__name__}; keys are text"
            if (reason := _text_fault(key)) is not None:
                return f"a key with {reason}"
        return None
    return f"{type(item).__name__} is no JSON"


def _text_fault(text: str) -> str | None:
    if "\x00" in text:
        return "a NUL character, which PostgreSQL cannot hold"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate, which is no Unicode text"
    return None
