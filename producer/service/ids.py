"""New job ids, and the clock: the one place of the producer where chance and time come in."""

from datetime import UTC, datetime

import uuid_utils


def new_job_id() -> str:
    """A UUIDv7 (RFC 9562): the time in milliseconds, then chance; of one process each is larger than the last."""
    return str(uuid_utils.uuid7())


def utc_now() -> datetime:
    """The time, as events carry it."""
    return datetime.now(UTC)
