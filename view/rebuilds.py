"""A further generation of the folded tables, made beside the serving one, compared with it and put in its place.

Theory of operation. All that was ever folded is in the serving history, raw: that is the archive. A rebuild folds
it again, page after page, into tables of its own, and notes in the same transaction how far it has come; so it can be
killed and goes on. The projector commits to the serving tables meanwhile, which makes the archive longer.

The switch is one transaction. It takes the lease away from the active projector, which locks the checkpoint and lets
every batch fail that was folded from the old tables; folds the little that has come since; and lets the new tables take
the names of the old ones. Readers see the one or the other, never less than before.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from sqlalchemy import (
    Connection,
    LargeBinary,
    Text,
    case,
    cast,
    delete,
    func,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)

from jobtape.schemas.job import Job
from jobtape.view import jobs, projection, tables
from jobtape.view.database import Database
from jobtape.view.tables import Folded
from jobtape.view.values import Archived, Batch, Rebuild

Known = Callable[[Collection[str]], dict[str, Job]]
Fold = Callable[[Sequence[Archived], Known], Batch]

RETIRED: Final = "retired"
PAGE: Final = 1000
FINISHING: Final = 5_000
"""Events that the switch may fold while it holds the checkpoint; with more to do it is refused."""

_row = tables.rebuild.c


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
        with self.database.writing() as connection:
            _drop_retired(connection)
            going_on = _state(connection)
            if going_on is not None and going_on.key == key:
                return going_on
            if going_on is not None:
                _give_up(connection, going_on)
            number = 1 + connection.execute(select(tables.checkpoint.c.generation)).scalar_one()
            made = Rebuild(number, key, cursor)
            tables.generation(number).jobs.metadata.create_all(connection)
            values = {"id": 1, "generation": number, "key": key, "cursor": cursor}
            connection.execute(tables.rebuild.insert().values(values))
            return made

    def archive(self, after: int, limit: int = PAGE) -> list[Archived]:
        """What was folded behind the cursor ``after``, raw, in the tape's order."""
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

        None, and nothing is written, when more than ``FINISHING`` events are left, or somebody else moved the rebuild.
        """
        with self.database.writing() as connection:
            connection.execute(update(tables.checkpoint).values(owner=None, lease_until=None))
            own = tables.generation(rebuild.generation)
            done: Rebuild | None = rebuild
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
            _note_what_is_not_there(connection, own)
            _take_the_names(connection, own)
            connection.execute(delete(tables.rebuild))
            connection.execute(update(tables.checkpoint).values(generation=rebuild.generation))
        self.clean_up()
        return done

    def give_up(self) -> bool:
        """Remove what a rebuild has made so far; False when there was none."""
        with self.database.writing() as connection:
            _drop_retired(connection)
            found = _state(connection)
            if found is not None:
                _give_up(connection, found)
            return found is not None

    def clean_up(self) -> None:
        """Remove the tables that served before."""
        with self.database.writing() as connection:
            _drop_retired(connection)


def _state(connection: Connection) -> Rebuild | None:
    row = connection.execute(select(_row.generation, _row.key, _row.cursor)).first()
    return None if row is None else Rebuild(row.generation, row.key, row.cursor)


def _archive(connection: Connection, after: int, limit: int) -> list[Archived]:
    event, kept = tables.history.c, tables.unreadable.c
    events = select(event.cursor, event.event, cast(null(), LargeBinary).label("body")).where(event.cursor > after)
    unread = select(kept.cursor, cast(null(), Text).label("event"), kept.body).where(kept.cursor > after)
    pages = [part.order_by(literal_column("cursor")).limit(limit).subquery() for part in (events, unread)]
    both = union_all(*(select(page.c.cursor, page.c.event, page.c.body) for page in pages))
    rows = connection.execute(both.order_by(literal_column("cursor")).limit(limit)).all()
    return [Archived(row[0], bytes(row[2]) if row[1] is None else row[1].encode()) for row in rows]


def _advance(connection: Connection, rebuild: Rebuild, batch: Batch, cursor: int) -> Rebuild | None:
    ours = (_row.generation == rebuild.generation) & (_row.cursor == rebuild.cursor)
    if connection.execute(update(tables.rebuild).where(ours).values(cursor=cursor)).rowcount != 1:
        return None
    projection.write_folded(connection, batch, tables.generation(rebuild.generation))
    return Rebuild(rebuild.generation, rebuild.key, cursor)


def _give_up(connection: Connection, rebuild: Rebuild) -> None:
    tables.generation(rebuild.generation).jobs.metadata.drop_all(connection)
    connection.execute(delete(tables.rebuild))


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
    for old, new in zip(tables.SERVING.each(), own.each(), strict=True):
        _rename(connection, old.name, f"{old.name}_{RETIRED}")
        _rename(connection, new.name, old.name)


def _rename(connection: Connection, name: str, into: str) -> None:
    connection.execute(text(f"ALTER TABLE {name} RENAME TO {into}"))


def _drop_retired(connection: Connection) -> None:
    for table in tables.SERVING.each():
        connection.execute(text(f"DROP TABLE IF EXISTS {table.name}_{RETIRED}"))
