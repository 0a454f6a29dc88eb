"""Identifiers: a job's id contains its time, and an event's id says which fact it is.

New UUIDs are not made here, because that needs a clock and random numbers.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_UUID = re.compile(UUID_PATTERN)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_job_id(text: str) -> str | None:
    """Return the canonical form (lower case, with hyphens) of a job id, or None when it is no UUID."""
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def time_of(job_id: str) -> datetime | None:
    """Return when a UUIDv7 was made (UTC, to the millisecond; RFC 9562, section 5.7). None for any other UUID."""
    uuid = UUID(job_id)
    if uuid.version != 7:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=uuid.int >> 80)
    except OverflowError:
        return None


def is_spawned(job_id: str) -> bool:
    """Return whether a handler spawned the job: then its id is a UUIDv8 with the time of the handler's job."""
    return UUID(job_id).version == 8


def first_id_at(time: datetime) -> str:
    """Return the smallest UUIDv7 of the millisecond of ``time``: jobs submitted from then on have higher ids."""
    milliseconds = max(0, (time - _EPOCH) // timedelta(milliseconds=1))
    return str(UUID(int=((milliseconds & (2**48 - 1)) << 80) | (7 << 76) | (2 << 62)))


def derived_id(text: str, like: str, version: int = 7) -> str:
    """Return a UUID with the time of the UUIDv7 ``like``, whose other bits follow from ``text``."""
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
    time = UUID(like).int >> 80
    return str(UUID(int=time << 80 | version << 76 | (digest >> 68) << 64 | 2 << 62 | digest & (2**62 - 1)))


def run_event_id(job_id: str, run: int, event: str) -> str:
    """Return the event id of a fact of a run. The same fact published again has the same id."""
    return f"{job_id}/{run}/{event}"


def attempt_event_id(job_id: str, run: int, attempt: int, event: str, execution: str, n: int | None = None) -> str:
    """Return the event id of a fact of one execution. ``n`` counts facts that occur many times (progress)."""
    base = f"{job_id}/{run}/{attempt}/{event}/{execution}"
    return base if n is None else f"{base}/{n}"


def signal_event_id(job_id: str, run: int, signal: str, key: str) -> str:
    """Return the event id of a signal to a run. ``key``: what tells several signals with one name apart."""
    return f"{job_id}/{run}/signalled/{signal}/{key}"


def job_of(event_id: str) -> str:
    """Return the id of the job that an event id belongs to."""
    return event_id.partition("/")[0]
