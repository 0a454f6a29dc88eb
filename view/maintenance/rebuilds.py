"""A rebuild: a second generation of the folded tables, made beside the serving one, which then takes its place.

Theory of operation. The serving history has all events that are kept, as they were read: it is the archive. A rebuild
folds it again, page by page, into tables of its own, and writes its position in the same transaction. So it can be
killed and continues. Meanwhile the projector commits to the serving tables, and the archive grows.

What the archive has when the rebuild begins is folded job by job: the events of a job do not depend on those of another
one. So each job is written once, no job is looked up, rows are added in the order of the indexes, and several processes
can fold pages at the same time. What comes later is folded in the order of the tape.

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
from dataclasses import astuple, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
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
    tuple_,
    union_all,
    update,
)

from jobtape.schemas.job import Job
from jobtape.view import checkpoint, projection, tables
from jobtape.view.jobs import queries as jobs
from jobtape.view.maintenance.retention import add_removed, remove_jobs
from jobtape.view.sql.database import StorePart
from jobtape.view.sql.paging import PAGE_BYTES, next_step, read_page
from jobtape.view.tables import FoldedTables
from jobtape.view.values import ByJob, FoldedBatch, RawMessage, RebuildState

Known = Callable[[Collection[str]], dict[str, Job]]
Fold = Callable[[Sequence[RawMessage], Known], FoldedBatch]

PAGE: Final = 1000
"""Events that are folded in their order in one transaction."""
JOB_PAGE: Final = 4000
"""Events that are folded job by job in one transaction."""
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
_event = tables.history.c
_STATE: Final = select(_row.generation, _row.key, _row.cursor, _row.by_job_end, _row.job_id, _row.event, _row.events)
_BY_JOB: Final = (
    select(_event.cursor, _event.job_id, _event.event)
    .where(
        tuple_(_event.job_id, _event.cursor)
        > tuple_(bindparam("job_id", type_=Text), bindparam("event", type_=BigInteger)),
        _event.cursor <= bindparam("end", type_=BigInteger),
    )
    .order_by(_event.job_id, _event.cursor)
    .limit(bindparam("limit", type_=Integer))
)


def _archive_statement() -> Select[Any]:
    """Return the statement of the events and unreadable messages after the cursor ``after``, at most ``limit``."""
    event, unreadable = tables.history.c, tables.unreadable.c
    after, limit = bindparam("after", type_=BigInteger), bindparam("limit", type_=Integer)
    events = select(event.cursor, event.event, cast(null(), LargeBinary).label("body")).where(event.cursor > after)
    others = select(unreadable.cursor, cast(null(), LargeBinary).label("event"), unreadable.body)
    parts = (events, others.where(unreadable.cursor > after))
    pages = [part.order_by(literal_column("cursor")).limit(limit).subquery() for part in parts]
    both = union_all(*(select(page.c.cursor, page.c.event, page.c.body) for page in pages)).subquery()
    return select(both.c.cursor, both.c.event, both.c.body).order_by(both.c.cursor).limit(limit)


_ARCHIVE: Final = _archive_statement()


class RebuildStore(StorePart):
    """Reads and writes the rebuild of the view."""

    def state(self) -> RebuildState | None:
        """Return the rebuild in progress, or None."""
        with self.database.reading() as connection:
            return _state(connection)

    def begin(self, key: str, cursor: int = 0, *, by_job: bool = False) -> RebuildState:
        """Create the tables, to be filled with the events after ``cursor``, or continue the rebuild of the same key.

        A rebuild of another key is ended, because another version of the code may have folded its tables. ``by_job``:
        fold what the archive has now job by job, from its beginning.
        """
        self.clean_up()
        with self.database.writing() as connection:
            number = 1 + connection.execute(select(tables.checkpoint.c.generation).with_for_update()).scalar_one()
            current = _state(connection, lock=True)
            if current is not None and current.key == key:
                return current
            if current is not None:
                _abandon(connection, current)
            tables.generation(number).jobs.metadata.create_all(connection)
            begun = RebuildState(number, key, cursor, ByJob(_end_of_archive(connection)) if by_job else None)
            connection.execute(tables.rebuild.insert().values(id=1, **_values(begun)))
            return begun

    def archive(self, after: int, limit: int = PAGE) -> list[RawMessage]:
        """Return what was folded after the cursor ``after``, raw, in the order of the tape.

        Returns fewer entries than ``limit`` when they reach ``PAGE_BYTES``, and none at the end.
        """
        with self.database.reading() as connection:
            return _archive(connection, after, limit)

    def archive_by_job(self, after: ByJob, limit: int = JOB_PAGE) -> list[RawMessage]:
        """Return the next events up to the cursor ``after.end``, sorted by job, and those of a job by cursor.

        Returns fewer than ``limit`` when they reach ``PAGE_BYTES``, and none at the end. The last job is complete
        unless it is the only one.
        """
        found: list[RawMessage] = []
        size = 0
        with self.database.reading() as connection:
            while len(found) < limit and size < PAGE_BYTES:
                job_id, event = (found[-1].job_id, found[-1].cursor) if found else (after.job_id, after.event)
                position = {"job_id": job_id, "event": event, "end": after.end}
                step = next_step(len(found), size, limit, PAGE_BYTES)
                rows = connection.execute(_BY_JOB, {**position, "limit": step}).all()
                if not rows:
                    return found
                page = [RawMessage(cursor, text.encode(), job_id) for cursor, job_id, text in rows]
                found += page
                size += sum(len(entry.body) for entry in page)
        last = found[-1].job_id
        return [entry for entry in found if entry.job_id != last] or found

    def unreadable_archive(self, after: ByJob) -> list[RawMessage]:
        """Return the unreadable messages after the cursor ``after.event`` and up to ``after.end``, some at a time."""
        row = tables.unreadable.c
        some = select(row.cursor, row.body).where(row.cursor <= after.end).order_by(row.cursor)
        with self.database.reading() as connection:

            def fetch(last: int, count: int) -> list[RawMessage]:
                rows = connection.execute(some.where(row.cursor > last).limit(count)).all()
                return [RawMessage(cursor, bytes(body)) for cursor, body in rows]

            return read_page(fetch, after.event, PAGE, lambda entry: len(entry.body), PAGE_BYTES)[0]

    def remaining(self, after: int) -> int:
        """Return about how many events come after the cursor ``after``: offsets without an event are counted too."""
        with self.database.reading() as connection:
            oldest, newest = (
                connection.execute(select(edge(_event.cursor))).scalar() or 0 for edge in (func.min, func.max)
            )
        return max(0, newest - max(oldest - 1, after))

    def known(self, rebuild: RebuildState, job_ids: Collection[str]) -> dict[str, Job]:
        """Return the jobs of the new generation, by id."""
        with self.database.reading() as connection:
            return jobs.some(connection, job_ids, tables.generation(rebuild.generation).jobs)

    def commit(self, rebuild: RebuildState, batch: FoldedBatch, cursor: int) -> RebuildState | None:
        """Write a batch into the new generation, which is then folded up to ``cursor``.

        Returns None, and writes nothing, when another process moved or ended the rebuild.
        """
        with self.database.writing() as connection:
            return _advance(connection, rebuild, batch, replace(rebuild, cursor=cursor))

    def commit_by_job(self, rebuild: RebuildState, batch: FoldedBatch, position: ByJob | None) -> RebuildState | None:
        """Same as ``commit``, for a rebuild that folds job by job. ``position`` is None after the last job."""
        assert rebuild.by_job is not None
        moved = replace(rebuild, by_job=position, cursor=rebuild.cursor if position else rebuild.by_job.end)
        with self.database.writing() as connection:
            return _advance(connection, rebuild, batch, moved)

    def switch(self, rebuild: RebuildState, fold: Fold) -> RebuildState | None:
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
                    done = _advance(connection, done, batch, replace(done, cursor=rows[-1].cursor))
                else:
                    done = None
            if done is None:
                connection.rollback()
                return None
            while _remove_pruned(connection, own):
                pass
            add_removed(connection, own)
            _raise_horizon(connection, own)
            _rename_into_place(connection, own)
            _end(connection, rebuild)
            connection.execute(update(tables.checkpoint).values(generation=rebuild.generation))
        return done

    def has_switched(self, rebuild: RebuildState) -> bool:
        """Return whether the rebuild's generation serves."""
        ended = ~exists(select(_row.id))
        with self.database.reading() as connection:
            serving = connection.execute(select(tables.checkpoint.c.generation).where(ended)).scalar()
        return serving == rebuild.generation

    def remove_pruned(self, rebuild: RebuildState) -> bool:
        """Remove from the new generation some of the jobs that retention has removed since they were folded into it.

        Returns False when there are no more, or the rebuild was ended.
        """
        with self.database.writing() as connection:
            ours = _state(connection, lock=True) == rebuild
            return ours and _remove_pruned(connection, tables.generation(rebuild.generation))

    def abandon(self, rebuild: RebuildState) -> bool:
        """End the rebuild and remove its tables; return False when another process ended it before."""
        with self.database.writing() as connection:
            found = _state(connection, lock=True)
            if found is None or found.key != rebuild.key:
                return False
            _abandon(connection, found)
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


def _state(connection: Connection, *, lock: bool = False) -> RebuildState | None:
    """Return the rebuild in progress. ``lock``: nobody can move or end it before the transaction ends."""
    row = connection.execute(_STATE.with_for_update() if lock else _STATE).first()
    if row is None:
        return None
    by_job = None if row.by_job_end is None else ByJob(row.by_job_end, row.job_id, row.event, row.events)
    return RebuildState(row.generation, row.key, row.cursor, by_job)


def _values(rebuild: RebuildState) -> dict[str, Any]:
    """Return the row of the rebuild, without its id."""
    end, *position = (None, None, None, None) if rebuild.by_job is None else astuple(rebuild.by_job)
    names = ("generation", "key", "cursor", "by_job_end", "job_id", "event", "events")
    return dict(zip(names, (rebuild.generation, rebuild.key, rebuild.cursor, end, *position), strict=True))


def _end_of_archive(connection: Connection) -> int:
    newest = (
        connection.execute(select(func.max(table.c.cursor))).scalar() for table in (tables.history, tables.unreadable)
    )
    return max(found or 0 for found in newest)


def _archive(connection: Connection, after: int, limit: int) -> list[RawMessage]:
    def fetch(last: int, count: int) -> list[RawMessage]:
        rows = connection.execute(_ARCHIVE, {"after": last, "limit": count}).all()
        return [RawMessage(cursor, bytes(body) if event is None else event.encode()) for cursor, event, body in rows]

    return read_page(fetch, after, limit, lambda entry: len(entry.body), PAGE_BYTES)[0]


def _advance(
    connection: Connection, rebuild: RebuildState, batch: FoldedBatch, moved: RebuildState
) -> RebuildState | None:
    ours = and_(*(_row[name].is_not_distinct_from(value) for name, value in _values(rebuild).items()))
    if connection.execute(update(tables.rebuild).where(ours).values(_values(moved))).rowcount != 1:
        return None
    projection.write_folded(connection, batch, tables.generation(rebuild.generation))
    return moved


def _remove_pruned(connection: Connection, own: FoldedTables) -> bool:
    """Remove some of the jobs that are gone from the serving tables; return False when there are none."""
    removed, serving, new = tables.tombstones.c.job_id, tables.jobs.c.id, own.jobs.c.id
    gone = select(new).join(tables.tombstones, removed == new).where(~exists(select(serving).where(serving == new)))
    job_ids = connection.execute(gone.limit(REMOVED_AT_ONCE)).scalars().all()
    if job_ids:
        added = remove_jobs(connection, job_ids, own)
        projection.add_to_tally(connection, {key: -n for key, n in added.items()}, own.tally)
    return bool(job_ids)


def _abandon(connection: Connection, rebuild: RebuildState) -> None:
    own = tables.generation(rebuild.generation)
    if connection.dialect.name == "sqlite":
        for index in (index for table in own.each() for index in table.indexes):
            index.drop(connection)  # the next rebuild of this number needs the name
        _retire(connection, own)
    else:
        own.jobs.metadata.drop_all(connection)
    _end(connection, rebuild)


def _end(connection: Connection, rebuild: RebuildState) -> None:
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
