"""A further generation of the folded tables, made beside the serving one, compared with it and put in its place.

Theory of operation. All that was ever folded is in the serving history, raw: that is the archive. A rebuild folds
it again, page after page, into tables of its own, and notes in the same transaction how far it has come; so it can be
killed and goes on. The projector commits to the serving tables meanwhile, which makes the archive longer.

The switch is one transaction. It takes the lease away from the active projector, which locks the checkpoint and lets
every batch fail that was folded from the old tables; folds the little that has come since; removes the jobs that were
let go meanwhile, of which the new tables may have the beginning only; and lets the new tables take the names of the old
ones. Readers see the one or the other, never less than before.

One rebuild goes on at a time, under its key. Who begins another one gives up the first, and takes its number and names:
so every write makes sure, in its own transaction, that the rebuild is still the one that it was made for. Locks are
taken in one order: checkpoint, rebuild, folded tables.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    LargeBinary,
    Select,
    Text,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)

from jobtape.schemas.job import Job
from jobtape.view import dropped_tables as retired
from jobtape.view import jobs, projection, tables
from jobtape.view.sql.database import Database
from jobtape.view.tables import Folded
from jobtape.view.values import Archived, Batch, Rebuild

Known = Callable[[Collection[str]], dict[str, Job]]
Fold = Callable[[Sequence[Archived], Known], Batch]

PAGE: Final = 1000
PAGE_BYTES: Final = 8 * 1024 * 1024
STEP: Final = 50
"""Entries fetched at a time: each may be as large as a job's payload."""
BREATH: Final = 0.01
"""Seconds between two transactions that remove tables: SQLite lets nobody wait in line."""
LET_GO: Final = 200
"""Jobs removed at a time."""
PATIENCE: Final = "300ms"
"""For the old tables' names, on PostgreSQL: whoever wants to read waits in line behind the one who waits for them."""
FINISHING: Final = 5_000
"""Events that the switch may fold while it holds the checkpoint; with more to do it is refused."""

_row = tables.rebuild.c
_STATE: Final = select(_row.generation, _row.key, _row.cursor)


def _step_statement() -> Select[Any]:
    """What was folded, read or not, behind ``after``: made once, since it is asked for often."""
    event, kept = tables.history.c, tables.unreadable.c
    after, limit = bindparam("after", type_=BigInteger), bindparam("limit", type_=Integer)
    events = select(event.cursor, event.event, cast(null(), LargeBinary).label("body")).where(event.cursor > after)
    unread = select(kept.cursor, cast(null(), Text).label("event"), kept.body).where(kept.cursor > after)
    pages = [part.order_by(literal_column("cursor")).limit(limit).subquery() for part in (events, unread)]
    both = union_all(*(select(page.c.cursor, page.c.event, page.c.body) for page in pages)).subquery()
    return select(both.c.cursor, both.c.event, both.c.body).order_by(both.c.cursor).limit(limit)


_STEP: Final = _step_statement()


class Rebuilds:
    """The rebuild of one view; each call blocks, and raises ViewUnavailable as all of the store's do."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def state(self) -> Rebuild | None:
        """The rebuild that goes on, or None."""
        with self.database.reading() as connection:
            return _state(connection)

    def begin(self, key: str, cursor: int = 0) -> Rebuild:
        """Make the tables, to be folded into from behind ``cursor``. A rebuild that was begun under the same key goes
        on where it is; another one is given up, since it may have been made by other rules.
        """
        self.clean_up()
        with self.database.writing() as connection:
            number = 1 + connection.execute(select(tables.checkpoint.c.generation).with_for_update()).scalar_one()
            going_on = _locked(connection)
            if going_on is not None and going_on.key == key:
                return going_on
            if going_on is not None:
                _give_up(connection, going_on)
            made = Rebuild(number, key, cursor)
            tables.generation(number).jobs.metadata.create_all(connection)
            values = {"id": 1, "generation": number, "key": key, "cursor": cursor}
            connection.execute(tables.rebuild.insert().values(values))
            return made

    def archive(self, after: int, limit: int = PAGE) -> list[Archived]:
        """What was folded behind the cursor ``after``, raw, in the tape's order; fewer than ``limit`` when it comes to
        more than ``PAGE_BYTES``, or when there is no more.
        """
        with self.database.reading() as connection:
            return _archive(connection, after, limit)

    def ahead(self, after: int) -> int:
        """How many events are behind the cursor ``after``, about: offsets that no event has are counted too."""
        with self.database.reading() as connection:
            newest = connection.execute(select(func.max(tables.history.c.cursor))).scalar()
        return max(0, (newest or 0) - after)

    def known(self, rebuild: Rebuild, job_ids: Collection[str]) -> dict[str, Job]:
        """The jobs, by id, as the new generation has them now."""
        with self.database.reading() as connection:
            return jobs.some(connection, job_ids, tables.generation(rebuild.generation).jobs)

    def commit(self, rebuild: Rebuild, batch: Batch, cursor: int) -> Rebuild | None:
        """Write a batch into the new generation, which is folded up to ``cursor`` then; None, and nothing is written,
        when somebody else moved or ended the rebuild.
        """
        with self.database.writing() as connection:
            return _advance(connection, rebuild, batch, cursor)

    def switch(self, rebuild: Rebuild, fold: Fold) -> Rebuild | None:
        """Fold the rest and let the new generation serve, in one transaction. Returns how far the rebuild had come.

        None, and nothing is written, when more than ``FINISHING`` events are left, or somebody else moved or ended the
        rebuild. After ViewUnavailable ask ``has_switched``. The old tables are left for ``clean_up``.
        """
        with self.database.writing() as connection:
            connection.execute(update(tables.checkpoint).values(owner=None, lease_until=None))
            own = tables.generation(rebuild.generation)
            done = rebuild if _locked(connection) == rebuild else None
            folded = 0
            while done is not None and (rows := _archive(connection, done.cursor, PAGE)):
                folded += len(rows)
                if folded > FINISHING:
                    done = None
                    break
                batch = fold(rows, lambda ids: jobs.some(connection, ids, own.jobs))
                done = _advance(connection, done, batch, rows[-1].cursor)
            if done is None:
                connection.rollback()
                return None
            while _remove(connection, own):
                pass
            _note_what_is_not_there(connection, own)
            _take_the_names(connection, own)
            _end(connection, rebuild)
            connection.execute(update(tables.checkpoint).values(generation=rebuild.generation))
        return done

    def has_switched(self, rebuild: Rebuild) -> bool:
        """Whether its generation serves."""
        ended = ~exists(select(_row.id))
        with self.database.reading() as connection:
            serving = connection.execute(select(tables.checkpoint.c.generation).where(ended)).scalar()
        return serving == rebuild.generation

    def let_go(self, rebuild: Rebuild) -> bool:
        """Remove from the new generation some of the jobs that retention has let go since they were folded into it;
        False when there are no more, or the rebuild was ended.
        """
        with self.database.writing() as connection:
            ours = _locked(connection) == rebuild
            return ours and _remove(connection, tables.generation(rebuild.generation))

    def give_up(self, rebuild: Rebuild) -> bool:
        """Remove what the rebuild has made so far; False when somebody else ended it before."""
        with self.database.writing() as connection:
            found = _locked(connection)
            if found is None or found.key != rebuild.key:
                return False
            _give_up(connection, found)
            return True

    def clean_up(self) -> None:
        """Remove the tables that served before, or were given up: piece by piece, others write in between."""
        more = True
        while more:
            with self.database.writing() as connection:
                more = retired.clear_some(connection)
            time.sleep(BREATH)


def comparison(key: str) -> str:
    """The task that says how far the comparison of the rebuild of that key has come; it goes with the rebuild."""
    return f"comparison of {key}"


def _state(connection: Connection) -> Rebuild | None:
    row = connection.execute(_STATE).first()
    return None if row is None else Rebuild(row.generation, row.key, row.cursor)


def _locked(connection: Connection) -> Rebuild | None:
    """The same, which nobody moves or ends before the transaction does."""
    row = connection.execute(_STATE.with_for_update()).first()
    return None if row is None else Rebuild(row.generation, row.key, row.cursor)


def _archive(connection: Connection, after: int, limit: int) -> list[Archived]:
    found: list[Archived] = []
    size, full = 0, True
    while full and len(found) < limit and size < PAGE_BYTES:
        step = min(STEP, limit - len(found))
        entries = _step(connection, found[-1].cursor if found else after, step)
        full = len(entries) == step
        found += entries
        size += sum(len(entry.body) for entry in entries)
    return found


def _step(connection: Connection, after: int, limit: int) -> list[Archived]:
    rows = connection.execute(_STEP, {"after": after, "limit": limit}).all()
    return [Archived(row[0], bytes(row[2]) if row[1] is None else row[1].encode()) for row in rows]


def _advance(connection: Connection, rebuild: Rebuild, batch: Batch, cursor: int) -> Rebuild | None:
    ours = (_row.generation == rebuild.generation) & (_row.key == rebuild.key) & (_row.cursor == rebuild.cursor)
    if connection.execute(update(tables.rebuild).where(ours).values(cursor=cursor)).rowcount != 1:
        return None
    projection.write_folded(connection, batch, tables.generation(rebuild.generation))
    return Rebuild(rebuild.generation, rebuild.key, cursor)


def _remove(connection: Connection, own: Folded) -> bool:
    """Remove some of the jobs that are gone from the serving tables; False when there were none."""
    stone, serving, new = tables.tombstones.c.job_id, tables.jobs.c.id, own.jobs.c.id
    gone = select(new).join(tables.tombstones, stone == new).where(~exists(select(serving).where(serving == new)))
    job_ids = list(connection.execute(gone.limit(LET_GO)).scalars())
    for column in (own.history.c.job_id, own.job_labels.c.job_id, new) if job_ids else ():
        connection.execute(delete(column.table).where(column.in_(job_ids)))
    return bool(job_ids)


def _give_up(connection: Connection, rebuild: Rebuild) -> None:
    own = tables.generation(rebuild.generation)
    if connection.dialect.name == "sqlite":
        for index in (index for table in own.each() for index in table.indexes):
            index.drop(connection)  # its name is needed by the next of this number
        retired.retire(connection, own)
    else:
        own.jobs.metadata.drop_all(connection)
    _end(connection, rebuild)


def _end(connection: Connection, rebuild: Rebuild) -> None:
    connection.execute(delete(tables.rebuild))
    connection.execute(delete(tables.tasks).where(tables.tasks.c.key == comparison(rebuild.key)))


def _note_what_is_not_there(connection: Connection, own: Folded) -> None:
    """A tape that begins later than the history that it replaces: who listens is to know."""
    old, new = (
        connection.execute(select(func.min(table.c.cursor))).scalar() for table in (tables.history, own.history)
    )
    if old is not None and new is not None and new > old:
        horizon = tables.checkpoint.c.horizon
        higher = case((horizon < new - 1, new - 1), else_=horizon)
        connection.execute(update(tables.checkpoint).values(horizon=higher))


def _take_the_names(connection: Connection, own: Folded) -> None:
    if connection.dialect.name == "postgresql":
        # All at once and soon, or not at all: this is tried again.
        connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
        names = ", ".join(table.name for table in tables.SERVING.each())
        connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    retired.retire(connection, tables.SERVING)
    for old, new in zip(tables.SERVING.each(), own.each(), strict=True):
        retired.rename(connection, new.name, old.name)
