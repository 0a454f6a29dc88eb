"""A cursor: where on the tape something stands, in one number.

Offsets start again at 0 when the log is created again, so each log has an epoch, counted from 1, and
``cursor = epoch * 2**48 + offset``. Cursors of one installation therefore only grow, and 0 stands before everything.
"""

EPOCH_BITS = 48
FIRST_EPOCH = 1
MAX_CURSOR = 2**63 - 1  # the databases' largest integer


def cursor_of(epoch: int, offset: int) -> int:
    """The cursor of the message at ``offset`` in the log of ``epoch``."""
    return (epoch << EPOCH_BITS) + offset


def offset_of(cursor: int) -> int:
    """The offset within its log."""
    return cursor & ((1 << EPOCH_BITS) - 1)


def epoch_of(cursor: int) -> int:
    """The epoch of its log."""
    return cursor >> EPOCH_BITS
