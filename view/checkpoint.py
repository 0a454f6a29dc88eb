"""The one row that says how far the tape is folded, by whom, and whether something is missing.

All functions but ``read`` want a transaction that may write.
"""

from typing import Any, get_args

from sqlalchemy import Connection, RowMapping, case, func, select, update

from jobtape.schemas import cursor as position
from jobtape.schemas.cursor import FIRST_EPOCH
from jobtape.schemas.errors import JobtapeError
from jobtape.view import tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk, clock, leases
from jobtape.view.values import Batch, Checkpoint, Gap, GapKind

_row = tables.checkpoint
_c = tables.checkpoint.c


def read(connection: Connection) -> Checkpoint | None:
    """The checkpoint, or None before the first start."""
    left = (_c.lease_until - clock.now(connection.dialect.name)).label("lease_left")
    row = connection.execute(select(_row, left)).mappings().first()
    return None if row is None else _from_row(row)


def _from_row(row: RowMapping) -> Checkpoint:
    gap = None if row["gap_kind"] is None else Gap(kind=row["gap_kind"], detail=row["gap_detail"] or "")
    return Checkpoint(
        epoch=row["epoch"],
        offset=row["offset"],
        digest=row["digest"],
        owner=row["owner"],
        lease_left=max(0.0, row["lease_left"] or 0.0),
        gap=gap,
    )


def create(connection: Connection) -> bool:
    """Make the checkpoint of a tape that nobody has read; False when there is one already."""
    insert = bulk.upsertable(connection.dialect.name, _row)
    statement = insert.values(id=1, epoch=FIRST_EPOCH).on_conflict_do_nothing().returning(_c.id)
    return connection.execute(statement).first() is not None


def is_unread(connection: Connection) -> bool:
    """Whether nothing has ever been folded."""
    unread = select(_c.id).where(_c.epoch == FIRST_EPOCH, _c.offset.is_(None))
    return connection.execute(unread).first() is not None


def take_lease(connection: Connection, owner: str, seconds: float) -> bool:
    """Make ``owner`` the active projector for ``seconds`` if nobody else is."""
    return _changed(connection, leases.taking(connection, _row, owner, seconds))


def renew_lease(connection: Connection, owner: str, seconds: float) -> bool:
    """Let the lease of ``owner`` run for ``seconds`` from now; False when it is another's."""
    return _changed(connection, leases.renewing(connection, _row, owner, seconds))


def release_lease(connection: Connection, owner: str) -> None:
    """Let others be active; nothing happens when the lease is another's."""
    connection.execute(leases.releasing(_row, owner))


def is_active(connection: Connection, owner: str) -> bool:
    """Whether the lease is that of ``owner`` and still runs; then nothing is folded before the transaction ends."""
    ours = select(_c.id).where(leases.held(connection, _row, owner)).with_for_update()
    return connection.execute(ours).first() is not None


def advance(
    connection: Connection, owner: str, expected: tuple[int, int | None], batch: Batch, lease_seconds: float
) -> bool:
    """Move from ``expected`` (epoch, offset) to the end of ``batch`` and renew the lease; False when it isn't ours."""
    epoch, offset = expected
    ours = (_c.epoch == epoch) & _c.offset.is_not_distinct_from(offset)
    return _changed(
        connection,
        leases.renewing(connection, _row, owner, lease_seconds)
        .where(ours)
        .values(
            offset=batch.offset,
            digest=batch.digest,
            horizon=case((_c.horizon < batch.horizon, batch.horizon), else_=_c.horizon),
        ),
    )


def report_gap(connection: Connection, owner: str, gap: Gap | None) -> bool:
    """Note why the active projector cannot go on, or with None that it can; False when ``owner`` isn't active."""
    if gap is not None and gap.kind not in get_args(GapKind):
        raise ValueError(f"no such gap: {gap.kind}")
    values = {"gap_kind": gap and gap.kind, "gap_detail": gap and storable(gap.detail)}
    return _changed(connection, update(_row).where(_c.owner == owner).values(**values))


def accept_gap(connection: Connection) -> Checkpoint:
    """Go on behind the gap: from the start of what the log has now, in a new epoch when it is another log.

    Raises JobtapeError when there is no gap.
    """
    # The update comes first: it locks the row, so nobody moves it between reading and writing.
    new_epoch = _c.gap_kind.in_(("tape-missing", "log-replaced"))
    moved = _changed(
        connection,
        update(_row)
        .where(_c.gap_kind.is_not(None))
        .values(
            epoch=_c.epoch + case((new_epoch, 1), else_=0),
            offset=None,
            digest=None,
            gap_kind=None,
            gap_detail=None,
            # Whoever has read everything so far has missed what lay in the gap.
            horizon=_c.epoch * (1 << position.EPOCH_BITS) + func.coalesce(_c.offset, -1) + 1,
        ),
    )
    if not moved:
        raise JobtapeError("there is no gap to accept: the projector has not reported one")
    after = read(connection)
    assert after is not None
    return after


def _changed(connection: Connection, statement: Any) -> bool:
    return bool(connection.execute(statement).rowcount == 1)
