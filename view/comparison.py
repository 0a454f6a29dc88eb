"""What differs between the serving generation of the view and one that is being built.

A stretch of jobs is compared at a time, by statements that the database may end when they take too long: it is tried
again with half as many then. How far a comparison has come can be kept, under the rebuild's key and as long as the
rebuild is, so that another process goes on there.
"""

from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, exists, func, or_, select

from jobtape.schemas import plainjson
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.rebuilds import comparison
from jobtape.view.sql.database import Database
from jobtape.view.tasks import Tasks
from jobtape.view.values import Difference, Differences, Rebuild

JOBS_AT_ONCE: Final = 1_000
FEWEST: Final = 30
SHOWN_BYTES: Final = 250_000
"""Of all examples together: they are for a job's result, which has a limit too."""
FIELDS: Final = tuple(column.name for column in tables.jobs.columns)


class ViewComparison:
    """Compares ``rebuild`` with what serves, and goes on where it was kept. ``examples``: how many are shown at most.

    Only jobs that nothing has happened to behind the rebuild's cursor are compared.
    """

    def __init__(self, database: Database, rebuild: Rebuild, examples: int) -> None:
        self._database = database
        self._cursor = rebuild.cursor
        self._old = tables.jobs
        self._new = tables.generation(rebuild.generation).jobs
        self._wanted = examples
        self._at_once = JOBS_AT_ONCE
        self._tasks = Tasks(database)
        self._task = comparison(rebuild.key)
        self._kept = self._tasks.begin(self._task, {"after": "", "found": _to_plain(Differences())})
        self._after: str = self._kept["after"]
        self.found = _from_plain(self._kept["found"])

    def keep(self) -> None:
        """Note how far it has come; nothing happens when the rebuild has ended. Raises ViewUnavailable."""
        now = {"after": self._after, "found": _to_plain(self.found)}
        if self._tasks.move(self._task, self._kept, now):
            self._kept = now

    def step(self) -> bool:
        """Compare the next stretch; False when that was the last one. Raises ViewUnavailable."""
        while True:
            try:
                return self._step()
            except ViewUnavailable:
                if self._at_once <= FEWEST:
                    raise
                self._at_once = max(FEWEST, self._at_once // 2)

    def _step(self) -> bool:
        with self._database.reading() as connection:
            end = max(filter(None, (self._end(connection, table) for table in (self._old, self._new))), default=None)
            if end is None:
                return False
            found = self._compare(connection, end)
        self._after, self.found = end, self.found.plus(found)
        return True

    def _end(self, connection: Connection, table: Table) -> str | None:
        """The last id of the next stretch of ``table``."""
        stretch = (
            select(table.c.id).where(table.c.id > self._after).order_by(table.c.id).limit(self._at_once).subquery()
        )
        found: str | None = connection.execute(select(func.max(stretch.c.id))).scalar()
        return found

    def _compare(self, connection: Connection, end: str) -> Differences:
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
        return Differences(
            compared=sum(moved.values()),
            states=moved,
            changed=_count(connection, changed),
            missing=_count(connection, missing),
            added=_count(connection, added),
            examples=self._examples(connection, changed, missing, added),
        )

    def _examples(self, connection: Connection, *kinds: Select[Any]) -> tuple[Difference, ...]:
        left = self._wanted - len(self.found.examples)
        room = SHOWN_BYTES - sum(map(_size, self.found.examples))
        found: list[Difference] = []
        for kind in kinds:
            # Their ids first: each of them may be large.
            ids = connection.execute(kind.limit(left - len(found))).scalars().all() if left > len(found) else ()
            for job_id in ids:
                example = self._difference(connection, job_id)
                room -= _size(example)
                if room < 0:
                    return tuple(found)
                found.append(example)
        return tuple(found)

    def _difference(self, connection: Connection, job_id: str) -> Difference:
        old, new = (
            connection.execute(select(table).where(table.c.id == job_id)).mappings().first()
            for table in (self._old, self._new)
        )
        if old is None or new is None:
            return Difference(job_id, {"state": (old and old["state"], new and new["state"])})
        return Difference(
            job_id, {name: (_shown(old[name]), _shown(new[name])) for name in old if old[name] != new[name]}
        )


def _count(connection: Connection, ids: Select[Any]) -> int:
    return connection.execute(select(func.count()).select_from(ids.subquery())).scalar_one()


def _shown(value: Any) -> Any:
    """A column's value as an example has it: plain and short."""
    return plainjson.short(value if value is None or isinstance(value, str | int | float) else str(value))


def _size(example: Difference) -> int:
    return len(plainjson.dumps(example.fields))


def _to_plain(found: Differences) -> dict[str, Any]:
    return {
        "counts": [found.compared, found.changed, found.missing, found.added],
        "states": [[*states, n] for states, n in sorted(found.states.items())],
        "examples": [
            [each.job_id, {name: list(pair) for name, pair in each.fields.items()}] for each in found.examples
        ],
    }


def _from_plain(state: dict[str, Any]) -> Differences:
    compared, changed, missing, added = state["counts"]
    return Differences(
        compared=compared,
        states={(old, new): n for old, new, n in state["states"]},
        changed=changed,
        missing=missing,
        added=added,
        examples=tuple(
            Difference(job_id, {name: (old, new) for name, (old, new) in fields.items()})
            for job_id, fields in state["examples"]
        ),
    )
