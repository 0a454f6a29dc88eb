"""Encodes what is sent to the API: bodies, keys and paths."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from jobtape.schemas.submission import IDEMPOTENCY_KEY

Query = Sequence[tuple[str, str]]
"""The query parameters of a URL."""


def json_of(body: Mapping[str, Any]) -> bytes:
    """Return the request's body. Times in it become RFC 3339 text."""
    # httpx's JSON encoder raises on NaN and lone surrogates; the API shall refuse them with its own message.
    return json.dumps(body, default=datetime.isoformat).encode()


def new_key() -> str:
    """Return a new random Idempotency-Key."""
    return uuid4().hex


def key_header(key: str) -> str:
    """Return the value of the Idempotency-Key header, a structured field string (RFC 9651).

    Raises ValueError when ``key`` cannot be an idempotency key.
    """
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValueError("an idempotency key has 1 to 255 visible ASCII characters, without spaces")
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def job_path(job_id: str) -> str:
    """Return the path of a job. Raises ValueError when ``job_id`` cannot be a job id."""
    if not job_id or not all(letter.isalnum() or letter == "-" for letter in job_id):
        raise ValueError(f"{job_id!r} is not a job id")
    return f"/jobs/{job_id}"
