"""The one row that says how far the tape is folded, by which projector, and whether something is missing.

The functions work in the caller's transaction.
"""

from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, func, select, update

from jobtape.schemas import cursor as position
from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobtapeError
from jobtape.view import tables
from jobtape.view.sql import bulk, leases
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.driver import DriverConnection
from jobtape.view.values import Checkpoint, FoldedBatch, Gap

FAULT_KEY: Final = "fold"
"""The row of the fold's fault in the table of tasks."""
END_KEY: Final = "tape end"
"""The row of the tape's end in the table of tasks."""
END_KEPT: Final = 20.0
"""Seconds for which a note of the tape's end counts. The active projector writes a new one more often."""
LONGEST_FAULT: Final = 500
"""Characters."""

_row = tables.checkpoint
_c = tables.checkpoint.c
_task = tables.tasks.c
_READ: Final = select(_row, NOW.label("now"))
# Built once, as it is executed for each batch.
_ADVANCE: Final = (
    leases.renew(_row, bindparam("by"), bindparam("seconds"))
    .where(_c.epoch == bindparam("in_epoch"), _c.offset.is_not_distinct_from(bindparam("from_offset")))
    .values(
        offset=bindparam("to_offset"),
        digest=bindparam("to_digest"),
        horizon=bulk.greater(_c.horizon, bindparam("at_least", type_=_c.horizon.type)),
    )
)


def read(connection: Connection) -> Checkpoint | None:
    """Return the checkpoint, or None before the first start."""
    row = connection.execute(_READ).first()
    if row is None:
        return None
    left = max(0.0, (row.lease_until or 0.0) - row.now)
    gap = None if row.gap_kind is None else Gap(row.gap_kind, row.gap_detail or "")
    return Checkpoint(row.epoch, row.offset, row.digest, row.owner, left, gap, row.now)


def is_active(connection: Connection, owner: str) -> bool:
    """Return whether ``owner`` is the active projector. If so, no other one folds before the transaction ends."""
    ours = select(_c.id).where(leases.held(_row, owner)).with_for_update()
    return connection.execute(ours).first() is not None


def advance(
    connection: DriverConnection, owner: str, expected: tuple[int, int | None], batch: FoldedBatch, lease_seconds: float
) -> None:
    """Move from ``expected`` (epoch, offset) to the end of ``batch`` and renew the lease.

    The transaction raises NothingChanged when the checkpoint is elsewhere or another projector's.
    """
    epoch, offset = expected
    values = {
        "by": owner,
        "seconds": lease_seconds,
        "in_epoch": epoch,
        "from_offset": offset,
        "to_offset": batch.offset,
        "to_digest": batch.digest,
        "at_least": batch.horizon,
    }
    connection.change_one(_ADVANCE, values)


def raise_horizon(connection: Connection, cursor: int) -> None:
    """Note that the history before ``cursor`` is not complete any more."""
    connection.execute(update(_row).values(horizon=bulk.greater(_c.horizon, cursor)))


def accept_gap(connection: Connection) -> Checkpoint:
    """Continue behind the gap with the first message of the log, in a new epoch when it is a different log.

    Raises JobtapeError when there is no gap.
    """
    new_epoch = _c.gap_kind.in_(("tape-missing", "tape-replaced"))
    # The update comes before the read: it locks the row.
    moved = (
        update(_row)
        .where(_c.gap_kind.is_not(None))
        .values(
            epoch=_c.epoch + case((new_epoch, 1), else_=0),
            offset=None,
            digest=None,
            gap_kind=None,
            gap_detail=None,
            # A listener that has read everything so far has missed what was in the gap.
            horizon=_c.epoch * (1 << position.EPOCH_BITS) + func.coalesce(_c.offset, -1) + 1,
        )
    )
    if connection.execute(moved).rowcount != 1:
        raise JobtapeError("there is no gap to accept: the projector has not reported one")
    after = read(connection)
    assert after is not None
    return after


def note_fault(connection: Connection, fault: str) -> None:
    """Note why nothing after the checkpoint can be folded. The note is void as soon as the checkpoint has moved."""
    now = read(connection)
    assert now is not None
    # In ASCII: what makes the fold fail must not make the note fail too.
    text = fault[:LONGEST_FAULT].encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
    _note(connection, FAULT_KEY, {"cursor": now.cursor, "fault": text})


def read_fault(connection: Connection) -> str | None:
    """Return why nothing after the checkpoint can be folded; None when nothing is noted."""
    state = connection.execute(select(_task.state).where(_task.key == FAULT_KEY)).scalar()
    if state is None:
        return None
    noted: dict[str, Any] = dict(plainjson.loads(state.encode()))
    now = read(connection)
    return str(noted["fault"]) if now is not None and now.cursor == noted["cursor"] else None


def note_end(connection: Connection, offset: int) -> None:
    """Note that the tape has a message at ``offset`` now."""
    now = read(connection)
    assert now is not None
    _note(connection, END_KEY, {"epoch": now.epoch, "offset": offset})


def events_behind(connection: Connection) -> int | None:
    """Return how many messages up to the noted end of the tape are not folded; None when the end is not known."""
    noted = connection.execute(select(_task.state).where(_task.key == END_KEY, _task.at > NOW - END_KEPT)).scalar()
    now = read(connection)
    if noted is None or now is None or now.gap is not None:
        return None
    end: dict[str, int] = plainjson.loads(noted.encode())
    return max(0, end["offset"] - (-1 if now.offset is None else now.offset)) if end["epoch"] == now.epoch else None


def _note(connection: Connection, key: str, state: dict[str, Any]) -> None:
    values = {"state": plainjson.dumps(state).decode(), "at": NOW}
    insert = bulk.upsert(connection.dialect.name, tables.tasks).values(key=key, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_=values))
