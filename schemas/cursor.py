"""A cursor: a position on the tape in one number, ``epoch * 2**48 + offset``.

Offsets start at 0 again when the log is created again, so each log has an epoch, counted from 1. So the cursors of one
installation only grow, and cursor 0 is before everything.
"""

EPOCH_BITS = 48
FIRST_EPOCH = 1
MAX_CURSOR = 2**63 - 1  # the databases' largest integer


def cursor_of(epoch: int, offset: int) -> int:
    """Return the cursor of the message at ``offset`` in the log of ``epoch``."""
    return (epoch << EPOCH_BITS) + offset


def next_epoch(cursor: int) -> int:
    """Return the cursor of the first message in the log after the one of ``cursor``."""
    return cursor_of((cursor >> EPOCH_BITS) + 1, 0)


def offset_of(cursor: int) -> int:
    return cursor & ((1 << EPOCH_BITS) - 1)
