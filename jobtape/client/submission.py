"""Builds the body of ``POST /jobs`` from the arguments of ``submit``."""

from collections.abc import Mapping
from typing import Any

from jobtape.jobs import JobType, Options
from jobtape.schemas import plainjson
from jobtape.schemas.errors import PayloadInvalid


def order_of(
    job_type: JobType[Any] | str, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the request's body. Raises PayloadInvalid."""
    if isinstance(job_type, str):
        order: dict[str, Any] = {"type": job_type, "payload": _payload(job_type, args, kwargs)}
    else:
        order = {"type": job_type.name, "payload": job_type.payload_to_send(*args, **kwargs)}
    given = {
        "queue": options.queue,
        "timeout": options.timeout,
        "delay": options.delay,
        "run_at": None if options.run_at is None else options.run_at.isoformat(),
        "max_attempts": options.max_attempts,
        "labels": dict(options.labels) or None,
        "correlation_id": options.correlation_id,
        "reply_to": options.reply_to,
    }
    return order | {name: value for name, value in given.items() if value is not None}


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
