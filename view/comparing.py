"""What differs between the serving generation of the view and one that is being built."""

from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, exists, func, or_, select

from jobtape.view import tables
from jobtape.view.database import Database
from jobtape.view.values import Difference, Differences, Rebuild

JOBS_AT_ONCE: Final = 5_000
FIELDS: Final = tuple(column.name for column in tables.jobs.columns)


class Comparing:
    """Compares ``rebuild`` with what serves, a stretch of jobs at a time, so that no statement takes long.

    Only jobs that nothing has happened to behind the rebuild's cursor are compared.
    """

    def __init__(self, database: Database, rebuild: Rebuild, examples: int) -> None:
        self._database = database
        self._cursor = rebuild.cursor
        self._old = tables.jobs
        self._new = tables.generation(rebuild.generation).jobs
        self._wanted = examples
        self._after = ""
        self.found = Differences()

    def step(self) -> bool:
        """Compare the next stretch; False when that was the last one. Raises ViewUnavailable."""
        with self._database.reading() as connection:
            end = max(filter(None, (self._end(connection, table) for table in (self._old, self._new))), default=None)
            if end is None:
                return False
            self._compare(connection, end)
        self._after = end
        return True

    def _end(self, connection: Connection, table: Table) -> str | None:
        """The last id of the next stretch of ``table``."""
        stretch = select(table.c.id).where(table.c.id > self._after).order_by(table.c.id).limit(JOBS_AT_ONCE).subquery()
        found: str | None = connection.execute(select(func.max(stretch.c.id))).scalar()
        return found

    def _compare(self, connection: Connection, end: str) -> None:
        old, new = self._old.c, self._new.c
        both = self._old.join(self._new, old.id == new.id)
        stretch = (old.id > self._after) & (old.id <= end)
        settled = stretch & (old.cursor <= self._cursor)
        states = select(old.state, new.state, func.count()).select_from(both).where(settled)
        moved = Counter({(row[0], row[1]): row[2] for row in connection.execute(states.group_by(old.state, new.state))})
        differs = or_(*(old[name].is_distinct_from(new[name]) for name in FIELDS))
        changed = select(old.id).select_from(both).where(settled & differs)
        missing = (
            select(old.id)
            .select_from(self._old.outerjoin(self._new, old.id == new.id))
            .where(settled, new.id.is_(None))
        )
        let_go = exists(select(tables.tombstones.c.job_id).where(tables.tombstones.c.job_id == new.id))
        added = (
            select(new.id)
            .select_from(self._new.outerjoin(self._old, old.id == new.id))
            .where(new.id > self._after, new.id <= end, old.id.is_(None), ~let_go)
        )
        self.found = self.found.plus(
            Differences(
                compared=sum(moved.values()),
                states=moved,
                changed=_count(connection, changed),
                missing=_count(connection, missing),
                added=_count(connection, added),
                examples=self._examples(connection, changed, missing, added),
            )
        )

    def _examples(self, connection: Connection, *kinds: Select[Any]) -> tuple[Difference, ...]:
        left = self._wanted - len(self.found.examples)
        found: list[Difference] = []
        for kind in kinds:
            if left > len(found):
                ids = connection.execute(kind.limit(left - len(found))).scalars()
                found.extend(self._difference(connection, job_id) for job_id in ids)
        return tuple(found)

    def _difference(self, connection: Connection, job_id: str) -> Difference:
        old, new = (
            connection.execute(select(table).where(table.c.id == job_id)).mappings().first()
            for table in (self._old, self._new)
        )
        if old is None or new is None:
            return Difference(job_id, {"state": (old and old["state"], new and new["state"])})
        return Difference(job_id, {name: (old[name], new[name]) for name in old if old[name] != new[name]})


def _count(connection: Connection, ids: Select[Any]) -> int:
    return connection.execute(select(func.count()).select_from(ids.subquery())).scalar_one()
