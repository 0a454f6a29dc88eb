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


class NotJson(ValueError):
    """The bytes are not JSON at all (RFC 8259), or nested absurdly deep."""


def loads(body: bytes) -> Any:
    """The value of a JSON text. Raises NotJson. What is JSON but cannot be carried is for ``fault``."""
    try:
        return from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError as error:
        try:
            # The fast parser refuses lone surrogates as if they were bad syntax; they are a fault of a value.
            return json.loads(body)
        except (ValueError, RecursionError):
            raise NotJson(str(error)) from None


def dumps(value: Any) -> bytes:
    """The JSON text of a plain value, UTF-8, without spaces."""
    return to_json(value, inf_nan_mode="constants")


def fault(value: Any, at: str = "") -> str | None:
    """What makes a parsed JSON value impossible to carry, with its place; None when all is well."""
    stack: list[tuple[Any, str, int]] = [(value, at, 0)]
    while stack:
        item, place, depth = stack.pop()
        if depth > DEPTH_LIMIT:
            return f"{place[:80]}…: nested deeper than {DEPTH_LIMIT} levels"
        if isinstance(item, str):
            if (reason := _text_fault(item)) is not None:
                return f"{place or 'value'}: {reason}"
        elif isinstance(item, bool) or item is None:
            continue
        elif isinstance(item, int):
            if not -INT_LIMIT <= item < INT_LIMIT:
                return f"{place or 'value'}: an integer beyond 64 bits; send it as a string"
        elif isinstance(item, float):
            if not math.isfinite(item):
                return f"{place or 'value'}: NaN and Infinity are no JSON; send null or a string"
        elif isinstance(item, dict):
            for key, child in item.items():
                if (reason := _text_fault(key)) is not None:
                    return f"{place or 'value'}: a key with {reason}"
                stack.append((child, f"{place}.{key}" if place else key, depth + 1))
        elif isinstance(item, list):
            stack.extend((child, f"{place}[{i}]", depth + 1) for i, child in enumerate(item))
        else:
            return f"{place or 'value'}: {type(item).__name__} is no JSON"
    return None


def _text_fault(text: str) -> str | None:
    if "\x00" in text:
        return "a NUL character, which PostgreSQL cannot hold"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate, which is no Unicode text"
    return None
