"""A rebuild: a second generation of the folded tables, made beside the serving one, which then takes its place.

Theory of operation. The serving history has all events that are kept, as they were read: it is the archive. A rebuild
folds it again, page by page, into tables of its own, and writes its cursor in the same transaction. So it can be killed
and continues. Meanwhile the projector commits to the serving tables, and the archive grows.

The switch is one transaction. It takes the lease from the active projector, so a batch that was folded from the old
tables cannot be committed any more. It folds the few events that came since. It removes the jobs that retention has
removed since, because the rebuild may have read only a part of their events. Then the new tables take the names of the
old ones. A reader sees the old tables or the new ones, never a mixture.

There is one rebuild at a time, under its key. When another one begins, the first one ends, and the new one uses the
same number and table names. So each write checks, in its own transaction, that it still belongs to the rebuild in
progress. Locks are taken in one order: checkpoint, rebuild, folded tables.

The old tables are retired: they get other names, and ``clean_up`` drops them later, in small steps. SQLite has one
writer and reads each page of a table to drop it: a million events took 16 s. PostgreSQL drops a table at once.
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
    Table,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    inspect,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)

from jobtape.schemas.job import Job
from jobtape.view import checkpoint, jobs, projection, tables
from jobtape.view.sql.database import StorePart
from jobtape.view.sql.paging import PAGE_BYTES, read_page
from jobtape.view.tables import FoldedTables
from jobtape.view.values import Archived, Batch, Rebuild

Known = Callable[[Collection[str]], dict[str, Job]]
Fold = Callable[[Sequence[Archived], Known], Batch]

PAGE: Final = 1000
CLEAN_UP_PAUSE: Final = 0.01
"""Seconds between two transactions of ``clean_up``, for other writers: SQLite does not queue them."""
CHUNK: Final = 2_000
"""Rows of a retired table that are removed in one transaction."""
REMOVED_AT_ONCE: Final = 200
"""Jobs of the new generation that are removed in one transaction."""
RENAME_TIMEOUT: Final = "300ms"
"""How long PostgreSQL waits for the locks on the old tables. Every reader that comes meanwhile waits too."""
LAST_EVENTS: Final = 5_000
"""Events that the switch may fold while it holds the checkpoint. With more it is refused."""

_row = tables.rebuild.c
_STATE: Final = select(_row.generation, _row.key, _row.cursor)


def _archive_statement() -> Select[Any]:
    """Return the statement of the events and unreadable messages behind ``after``, at most ``limit``."""
    event, unreadable = tables.history.c, tables.unreadable.c
    after, limit = bindparam("after", type_=BigInteger), bindparam("limit", type_=Integer)
    events = select(event.cursor, event.event, cast(null(), LargeBinary).label("body")).where(event.cursor > after)
    others = select(unreadable.cursor, cast(null(), Text).label("event"), unreadable.body)
    parts = (events, others.where(unreadable.cursor > after))
    pages = [part.order_by(literal_column("cursor")).limit(limit).subquery() for part in parts]
    both = union_all(*(select(page.c.cursor, page.c.event, page.c.body) for page in pages)).subquery()
    return select(both.c.cursor, both.c.event, both.c.body).order_by(both.c.cursor).limit(limit)


_ARCHIVE: Final = _archive_statement()


class Rebuilds(StorePart):
    """Reads and writes the rebuild of the view."""

    def state(self) -> Rebuild | None:
        """Return the rebuild in progress, or None."""
        with self.database.reading() as connection:
            return _state(connection)

    def begin(self, key: str, cursor: int = 0) -> Rebuild:
        """Create the tables, to be filled with the events after ``cursor``, or continue the rebuild of the same key.

        A rebuild of another key is ended, because another version of the code may have folded its tables.
        """
        self.clean_up()
        with self.database.writing() as connection:
            number = 1 + connection.execute(select(tables.checkpoint.c.generation).with_for_update()).scalar_one()
            current = _state(connection, lock=True)
            if current is not None and current.key == key:
                return current
            if current is not None:
                _give_up(connection, current)
            tables.generation(number).jobs.metadata.create_all(connection)
            values = {"id": 1, "generation": number, "key": key, "cursor": cursor}
            connection.execute(tables.rebuild.insert().values(values))
            return Rebuild(number, key, cursor)

    def archive(self, after: int, limit: int = PAGE) -> list[Archived]:
        """Return what was folded after the cursor ``after``, raw, in the order of the tape.

        Returns fewer entries than ``limit`` when they reach ``PAGE_BYTES``, and none at the end.
        """
        with self.database.reading() as connection:
            return _archive(connection, after, limit)

    def remaining(self, after: int) -> int:
        """Return about how many events come after the cursor ``after``: offsets without an event are counted too."""
        with self.database.reading() as connection:
            newest = connection.execute(select(func.max(tables.history.c.cursor))).scalar()
        return max(0, (newest or 0) - after)

    def known(self, rebuild: Rebuild, job_ids: Collection[str]) -> dict[str, Job]:
        """Return the jobs of the new generation, by id."""
        with self.database.reading() as connection:
            return jobs.some(connection, job_ids, tables.generation(rebuild.generation).jobs)

    def commit(self, rebuild: Rebuild, batch: Batch, cursor: int) -> Rebuild | None:
        """Write a batch into the new generation, which is then folded up to ``cursor``.

        Returns None, and writes nothing, when another process moved or ended the rebuild.
        """
        with self.database.writing() as connection:
            return _advance(connection, rebuild, batch, cursor)

    def switch(self, rebuild: Rebuild, fold: Fold) -> Rebuild | None:
        """Fold the remaining events and let the new generation serve, in one transaction.

        Returns the rebuild as it ended. Returns None, and writes nothing, when more than ``LAST_EVENTS`` events remain
        or another process moved or ended the rebuild. After ViewUnavailable call ``has_switched``. The old tables
        remain until ``clean_up``.
        """
        with self.database.writing() as connection:
            connection.execute(update(tables.checkpoint).values(owner=None, lease_until=None))
            own = tables.generation(rebuild.generation)
            done = rebuild if _state(connection, lock=True) == rebuild else None
            folded = 0
            while done is not None and (rows := _archive(connection, done.cursor, PAGE)):
                folded += len(rows)
                if folded <= LAST_EVENTS:
                    batch = fold(rows, lambda ids: jobs.some(connection, ids, own.jobs))
                    done = _advance(connection, done, batch, rows[-1].cursor)
                else:
                    done = None
            if done is None:
                connection.rollback()
                return None
            while _remove_pruned(connection, own):
                pass
            _raise_horizon(connection, own)
            _rename_into_place(connection, own)
            _end(connection, rebuild)
            connection.execute(update(tables.checkpoint).values(generation=rebuild.generation))
        return done

    def has_switched(self, rebuild: Rebuild) -> bool:
        """Return whether the rebuild's generation serves."""
        ended = ~exists(select(_row.id))
        with self.database.reading() as connection:
            serving = connection.execute(select(tables.checkpoint.c.generation).where(ended)).scalar()
        return serving == rebuild.generation

    def remove_pruned(self, rebuild: Rebuild) -> bool:
        """Remove from the new generation some of the jobs that retention has removed since they were folded into it.

        Returns False when there are no more, or the rebuild was ended.
        """
        with self.database.writing() as connection:
            ours = _state(connection, lock=True) == rebuild
            return ours and _remove_pruned(connection, tables.generation(rebuild.generation))

    def give_up(self, rebuild: Rebuild) -> bool:
        """End the rebuild and remove its tables; return False when another process ended it before."""
        with self.database.writing() as connection:
            found = _state(connection, lock=True)
            if found is None or found.key != rebuild.key:
                return False
            _give_up(connection, found)
            return True

    def clean_up(self) -> None:
        """Drop the retired tables, in small transactions, so that other writers do not wait."""
        more = True
        while more:
            with self.database.writing() as connection:
                more = _drop_some(connection)
            time.sleep(CLEAN_UP_PAUSE)


def comparison_task(key: str) -> str:
    """Return the key of the task that compares the rebuild of that key. It is removed with the rebuild."""
    return f"comparison of {key}"


def _state(connection: Connection, *, lock: bool = False) -> Rebuild | None:
    """Return the rebuild in progress. ``lock``: nobody can move or end it before the transaction ends."""
    row = connection.execute(_STATE.with_for_update() if lock else _STATE).first()
    return None if row is None else Rebuild(row.generation, row.key, row.cursor)


def _archive(connection: Connection, after: int, limit: int) -> list[Archived]:
    def fetch(behind: int, count: int) -> list[Archived]:
        rows = connection.execute(_ARCHIVE, {"after": behind, "limit": count}).all()
        return [Archived(cursor, bytes(body) if event is None else event.encode()) for cursor, event, body in rows]

    return read_page(fetch, after, limit, lambda entry: len(entry.body), PAGE_BYTES)[0]


def _advance(connection: Connection, rebuild: Rebuild, batch: Batch, cursor: int) -> Rebuild | None:
    ours = (_row.generation == rebuild.generation) & (_row.key == rebuild.key) & (_row.cursor == rebuild.cursor)
    if connection.execute(update(tables.rebuild).where(ours).values(cursor=cursor)).rowcount != 1:
        return None
    projection.write_folded(connection, batch, tables.generation(rebuild.generation))
    return Rebuild(rebuild.generation, rebuild.key, cursor)


def _remove_pruned(connection: Connection, own: FoldedTables) -> bool:
    """Remove some of the jobs that are gone from the serving tables; return False when there are none."""
    removed, serving, new = tables.tombstones.c.job_id, tables.jobs.c.id, own.jobs.c.id
    gone = select(new).join(tables.tombstones, removed == new).where(~exists(select(serving).where(serving == new)))
    job_ids = connection.execute(gone.limit(REMOVED_AT_ONCE)).scalars().all()
    for column in (own.history.c.job_id, own.job_labels.c.job_id, new) if job_ids else ():
        connection.execute(delete(column.table).where(column.in_(job_ids)))
    return bool(job_ids)


def _give_up(connection: Connection, rebuild: Rebuild) -> None:
    own = tables.generation(rebuild.generation)
    if connection.dialect.name == "sqlite":
        for index in (index for table in own.each() for index in table.indexes):
            index.drop(connection)  # the next rebuild of this number needs the name
        _retire(connection, own)
    else:
        own.jobs.metadata.drop_all(connection)
    _end(connection, rebuild)


def _end(connection: Connection, rebuild: Rebuild) -> None:
    connection.execute(delete(tables.rebuild))
    connection.execute(delete(tables.tasks).where(tables.tasks.c.key == comparison_task(rebuild.key)))


def _raise_horizon(connection: Connection, own: FoldedTables) -> None:
    """Raise the horizon if the new history begins later than the old one, so that listeners learn of it."""
    old, new = (
        connection.execute(select(func.min(table.c.cursor))).scalar() for table in (tables.history, own.history)
    )
    if old is not None and new is not None and new > old:
        checkpoint.raise_horizon(connection, new - 1)


def _rename_into_place(connection: Connection, own: FoldedTables) -> None:
    if connection.dialect.name == "postgresql":
        # Get all locks within the limit, or fail; the caller tries again.
        connection.execute(text(f"SET LOCAL lock_timeout = '{RENAME_TIMEOUT}'"))
        names = ", ".join(table.name for table in tables.SERVING.each())
        connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    _retire(connection, tables.SERVING)
    for old, new in zip(tables.SERVING.each(), own.each(), strict=True):
        _rename(connection, new.name, old.name)


def _retire(connection: Connection, folded: FoldedTables) -> None:
    """Rename the tables, so that no statement finds them, until ``clean_up`` drops them."""
    for table, serving in zip(folded.each(), tables.SERVING.each(), strict=True):
        # A process that died may have left a retired table.
        connection.execute(text(f"DROP TABLE IF EXISTS {_retired(serving)}"))
        _rename(connection, table.name, _retired(serving))


def _rename(connection: Connection, name: str, into: str) -> None:
    connection.execute(text(f"ALTER TABLE {name} RENAME TO {into}"))


def _retired(table: Table) -> str:
    return f"{table.name}_retired"


def _drop_some(connection: Connection) -> bool:
    """Drop a part of the retired tables; return False when there are none."""
    present = set(inspect(connection).get_table_names())
    table = next((each for each in tables.SERVING.each() if _retired(each) in present), None)
    if table is None:
        return False
    name = _retired(table)
    if connection.dialect.name == "sqlite":
        indexes = text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL")
        index = connection.execute(indexes, {"name": name}).scalar()
        if index is not None:
            connection.execute(text(f"DROP INDEX {index}"))
            return True
        key = ", ".join(column.name for column in table.primary_key)
        some = f"SELECT {key} FROM {name} LIMIT {CHUNK}"  # noqa: S608 - all names are ours
        if connection.execute(text(f"DELETE FROM {name} WHERE ({key}) IN ({some})")).rowcount:  # noqa: S608
            return True
    connection.execute(text(f"DROP TABLE {name}"))
    return True
