"""JSON that AMQP, SQLite, PostgreSQL and clients in any language can carry.

PostgreSQL refuses NUL characters and lone surrogates in text. Integers over 64 bits lose digits in most languages. NaN
and the infinities are no JSON (RFC 8259).
"""

import json
import math
from typing import Any

from pydantic_core import from_json, to_json

INT_LIMIT = 2**63
MAX_DEPTH = 64
PATH_LENGTH = 120
SHORT = 2_000
MARK = b"\xef\xbb\xbf"
"""The UTF-8 byte order mark."""
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_NUMBER = b"0" * 19
_LARGE_EXPONENT = b"0e000"
_NUMBER = 40
"""Bytes that have room for the digits of a number before its exponent, as there is no longer one."""


class NotJson(ValueError):
    """The bytes are not JSON (RFC 8259), or are nested too deep to parse."""


def loads(body: bytes) -> Any:
    """Parse a JSON text. Raises NotJson. Values that cannot be stored are accepted here; check them with ``fault``."""
    try:
        return from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError as error:
        try:
            # The fast parser refuses an escaped lone surrogate, which is no error of syntax. ``json.loads`` gets text,
            # because for bytes it also accepts UTF-16 and UTF-32.
            return json.loads(body.decode())
        except (ValueError, RecursionError):
            raise NotJson(str(error)) from None


def loads_sent(body: bytes) -> Any:
    """Parse a JSON text from a client or a file, and ignore a byte order mark, which editors on Windows write and RFC
    8259 (section 8.1) lets readers ignore. Raises NotJson.
    """
    return loads(body.removeprefix(MARK))


def dumps(value: Any) -> bytes:
    """Return the JSON text of a value, in UTF-8 without spaces."""
    return to_json(value, inf_nan_mode="constants")


def short(value: Any, most: int = SHORT) -> Any:
    """Return the value itself, or the beginning of its JSON text when that is longer than ``most`` bytes."""
    text = dumps(value)
    return value if len(text) <= most else f"{text[:most].decode(errors='ignore')}…"


def fault(value: Any, at: str = "", *, max_depth: int = MAX_DEPTH) -> str | None:
    """Return why a parsed JSON value cannot be stored, with the path of the fault; None if it can be."""
    stack: list[tuple[Any, _Path | None, int]] = [(value, None, 0)]
    while stack:
        item, path, depth = stack.pop()
        if (reason := _own_fault(item, depth, max_depth)) is not None:
            return f"{_path_text(path, at) or 'value'}: {reason}"
        if isinstance(item, dict):
            stack.extend((child, (path, key), depth + 1) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend((child, (path, i), depth + 1) for i, child in enumerate(item))
    return None


def is_surely_storable(body: bytes, *, max_depth: int = MAX_DEPTH) -> bool:
    """Return whether the bytes of a JSON text show that its value can be stored. If not, ``fault`` decides: most
    texts that are not clean have no fault. This takes a tenth of the time, because it does not visit the values.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    digits = body.translate(_DIGITS, b"+")
    return not (
        b"\\u" in body  # a NUL or a lone surrogate can only be an escape: JSON has no bare NUL, UTF-8 no surrogate
        or b"NaN" in body
        or b"Infinity" in body
        or _LONG_NUMBER in digits
        or body.count(b"{") + body.count(b"[") > max_depth
        or _has_large_exponent(digits)  # 1e999 is parsed as infinity
    )


def _has_large_exponent(digits: bytes) -> bool:
    """Return whether a number may have an exponent of three digits. Ids in hexadecimal have such digits too, but no
    number begins there: half of the events have such an id, and a regular expression would take longer than the parser.
    """
    at = digits.find(_LARGE_EXPONENT)
    while at >= 0:
        before = digits[max(0, at - _NUMBER) : at + 1].rstrip(b"0.").removesuffix(b"-")
        if not before or before[-1:] in b":,[ \t\r\n":
            return True
        at = digits.find(_LARGE_EXPONENT, at + 1)
    return False


def storable(text: str) -> str:
    """Return ``text`` with U+FFFD instead of each character that cannot be stored."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# The path of an item: its parent's path, and its own key or index. It becomes a text only for a fault: for a long key
# above a long list, texts for all items would have the square of the body's size.
_Path = tuple[Any, str | int]


def _path_text(path: _Path | None, at: str) -> str:
    steps: list[str | int] = []
    while path is not None:
        path, step = path
        steps.append(step)
    text = at
    for step in reversed(steps):
        text += f"[{step}]" if isinstance(step, int) else f".{step[:80]}" if text else step[:80]
        if len(text) > PATH_LENGTH:
            return text[:PATH_LENGTH] + "…"
    return text


def _own_fault(item: Any, depth: int, max_depth: int) -> str | None:
    if depth > max_depth:
        return f"nested deeper than {max_depth} levels"
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
