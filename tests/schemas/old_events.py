"""Events in version 1."""

from pathlib import Path
from typing import Any

from jobtape.schemas import plainjson
from jobtape.schemas.events import JobEvent, encode

VERSION_1 = Path(__file__).with_name("version_1.ndjson").read_bytes().splitlines()
"""One of each event, written by a program that only knew version 1, in the order of a job's life."""


def as_version_1(event: JobEvent) -> bytes:
    """The bytes of the event in version 1."""
    raw: dict[str, Any] = plainjson.loads(encode(event))
    raw["schemaversion"] = 1
    raw["data"].get("order", {}).pop("payload_version", None)
    return plainjson.dumps(raw)
