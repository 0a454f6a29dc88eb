"""Identifiers: a job's id says when it was made, an event's id says which fact it is.

Making new UUIDs needs a clock and chance, so it is not done here: ids are handed in.
"""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_UUID = re.compile(UUID_PATTERN)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_job_id(text: str) -> str | None:
    """The canonical form (lower case, with hyphens) of a job id, or None when it is no UUID."""
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def time_of(job_id: str) -> datetime | None:
    """When the id was made (UTC, to the millisecond), or None unless it is a UUIDv7 (RFC 9562, section 5.7)."""
    uuid = UUID(job_id)
    if uuid.version != 7:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=uuid.int >> 80)
    except OverflowError:
        return None


def first_id_at(time: datetime) -> str:
    """The smallest UUIDv7 of that millisecond: jobs made since ``time`` have ids from here on."""
    milliseconds = max(0, (time - _EPOCH) // timedelta(milliseconds=1))
    return str(UUID(int=((milliseconds & (2**48 - 1)) << 80) | (7 << 76) | (2 << 62)))


def run_fact(job_id: str, run: int, event: str) -> str:
    """The event id of a fact of a run; the same fact published again has the same id."""
    return f"{job_id}/{run}/{event}"


def execution_fact(job_id: str, run: int, attempt: int, event: str, execution: str, n: int | None = None) -> str:
    """The event id of a fact of one execution; ``n`` counts facts that may occur many times (progress)."""
    base = f"{job_id}/{run}/{attempt}/{event}/{execution}"
    return base if n is None else f"{base}/{n}"


def job_of(event_id: str) -> str:
    """The job that an event id, made by one of the above, is about."""
    return event_id.partition("/")[0]
