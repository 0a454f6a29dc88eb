"""New job ids, and the clock. The only source of randomness and time for what the producer publishes."""

from datetime import datetime

import uuid_utils

from jobtape.process import clock


def new_job_id() -> str:
    """Return a UUIDv7 (RFC 9562): the time in milliseconds, then random bits. Ids of one process only increase."""
    if clock.offset():
        return str(uuid_utils.uuid7(nanoseconds=int(clock.time() * 1e9)))
    return str(uuid_utils.uuid7())


def utc_now() -> datetime:
    """Return the time, as events have it."""
    return clock.now()
