"""What is sent, as text: bodies, keys, paths."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

Query = Sequence[tuple[str, str]]
"""What stands behind the ``?``."""

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


def json_of(order: Mapping[str, Any]) -> bytes:
    """The request's body."""
    # Not httpx's own JSON: what that cannot write (NaN, lone surrogates) is for the API to refuse.
    return json.dumps(order).encode()


def new_key() -> str:
    """An Idempotency-Key that nobody else has."""
    return uuid4().hex


def key_header(key: str) -> str:
    """The header's value, a structured field string (RFC 9651): whatever the key is, it is well formed. Raises
    ValueError when it cannot be a key.
    """
    if not _KEY.fullmatch(key):
        raise ValueError("an idempotency key has 1 to 255 visible ASCII characters, without spaces")
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def job_path(job_id: str) -> str:
    """Where the job is. Raises ValueError when ``job_id`` is none."""
    if not job_id or not all(letter.isalnum() or letter == "-" for letter in job_id):
        raise ValueError(f"{job_id!r} is no job id")
    return f"/jobs/{job_id}"
