"""Makes the bodies and headers of requests."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobtape.jobs import JobType
from jobtape.schemas import plainjson
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.submission import IDEMPOTENCY_KEY, Options, submission_body


def json_of(content: Mapping[str, Any]) -> bytes:
    """Return a request's body. Times in it become RFC 3339 text."""
    # httpx's JSON encoder raises on NaN and lone surrogates; the API shall refuse them with its own message.
    return json.dumps(content, default=datetime.isoformat).encode()


def submission_headers(key: str) -> dict[str, str]:
    """Return the headers of a submission under ``key``, as a structured field string (RFC 9651).

    Raises ValueError when ``key`` cannot be an idempotency key.
    """
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValueError("an idempotency key has 1 to 255 visible ASCII characters, without spaces")
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return {"Content-Type": "application/json", "Idempotency-Key": f'"{quoted}"'}


def body_of(
    options: Options, job_type: JobType[Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of a submission with the handler's arguments, or of a job type that is given by its name.

    Raises PayloadInvalid, and TypeError for arguments that are no payload.
    """
    if isinstance(job_type, str):
        return submission_body(job_type, _payload(job_type, args, kwargs), options)
    return submission_body(job_type.name, job_type.payload_to_send(*args, **kwargs), options)


def _payload(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    match args:
        case ():
            payload = kwargs
        case (Mapping() as mapping,) if not kwargs:
            payload = dict(mapping)
        case _:
            raise TypeError(f"the payload of {name!r} is one mapping, or keyword arguments")
    if (reason := plainjson.fault(payload)) is not None:
        raise PayloadInvalid(f"the payload of {name}: {reason}")
    return payload
