"""Compares the serving generation of the view with that of a rebuild.

One step compares a range of ids. When its statements take too long, the database ends them, and the step is repeated
with half as many jobs. The progress is saved as a task that exists as long as the rebuild, so that another process can
continue.
"""

from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, exists, func, or_, select

from jobtape.schemas import plainjson
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.rebuilds import comparison_task
from jobtape.view.sql.database import Database
from jobtape.view.tasks import Tasks
from jobtape.view.values import Differences, RebuildState

MOST_JOBS: Final = 1_000
FEWEST_JOBS: Final = 30
"""The limits of the number of jobs in one step."""
EXAMPLES_BYTES: Final = 250_000
"""Of all examples together: they become a part of a job's result, which is limited too."""
FIELDS: Final = tuple(column.name for column in tables.jobs.columns)


class ViewComparison:
    """Compares ``rebuild`` with the serving generation, and continues where the progress was saved.

    ``examples``: the highest number of examples. Only jobs without an event after the rebuild's cursor are compared.
    """

    def __init__(self, database: Database, rebuild: RebuildState, examples: int) -> None:
        self._database = database
        self._cursor = rebuild.cursor
        self._old = tables.jobs
        self._new = tables.generation(rebuild.generation).jobs
        self._wanted = examples
        self._at_once = MOST_JOBS
        self._tasks = Tasks(database)
        self._task = comparison_task(rebuild.key)
        self._saved = self._tasks.begin(self._task, {"after": "", "found": asdict(Differences())})
        self._after: str = self._saved["after"]
        self.found = Differences(**self._saved["found"])

    def save(self) -> None:
        """Save the progress. Changes nothing when the rebuild has ended. Raises ViewUnavailable."""
        now = {"after": self._after, "found": asdict(self.found)}
        if self._tasks.move(self._task, self._saved, now):
            self._saved = now

    def step(self) -> bool:
        """Compare the next jobs; return False when there are no more. Raises ViewUnavailable."""
        while True:
            try:
                return self._step()
            except ViewUnavailable:
                if self._at_once <= FEWEST_JOBS:
                    raise
                self._at_once = max(FEWEST_JOBS, self._at_once // 2)

    def _step(self) -> bool:
        with self._database.reading() as connection:
            end = max(filter(None, (self._end(connection, table) for table in (self._old, self._new))), default=None)
            if end is None:
                return False
            found = self._compare(connection, end)
        self._after, self.found = end, found
        return True

    def _end(self, connection: Connection, table: Table) -> str | None:
        """Return the last id of the next jobs of ``table``."""
        ids = select(table.c.id).where(table.c.id > self._after).order_by(table.c.id).limit(self._at_once).subquery()
        found: str | None = connection.execute(select(func.max(ids.c.id))).scalar()
        return found

    def _compare(self, connection: Connection, end: str) -> Differences:
        """Return what is found up to the id ``end``, with what was found before."""
        old, new = self._old.c, self._new.c
        both = self._old.join(self._new, old.id == new.id)
        compared = (old.id > self._after) & (old.id <= end) & (old.cursor <= self._cursor)
        states = select(old.state, new.state, func.count()).select_from(both).where(compared)
        moved = connection.execute(states.group_by(old.state, new.state)).all()
        differs = or_(*(old[name].is_distinct_from(new[name]) for name in FIELDS))
        changed = select(old.id).select_from(both).where(compared & differs)
        missing = (
            select(old.id)
            .select_from(self._old.outerjoin(self._new, old.id == new.id))
            .where(compared, new.id.is_(None))
        )
        pruned = exists(select(tables.tombstones.c.job_id).where(tables.tombstones.c.job_id == new.id))
        added = (
            select(new.id)
            .select_from(self._new.outerjoin(self._old, old.id == new.id))
            .where(new.id > self._after, new.id <= end, old.id.is_(None), ~pruned)
        )
        before = self.found
        by_state = dict(before.states)
        for serving, rebuilt, n in moved:
            name = serving if serving == rebuilt else f"{serving} → {rebuilt}"
            by_state[name] = by_state.get(name, 0) + n
        return Differences(
            compared=before.compared + sum(row[2] for row in moved),
            states=dict(sorted(by_state.items())),
            changed=before.changed + _count(connection, changed),
            missing=before.missing + _count(connection, missing),
            added=before.added + _count(connection, added),
            examples=[*before.examples, *self._examples(connection, changed, missing, added)],
        )

    def _examples(self, connection: Connection, *kinds: Select[Any]) -> list[dict[str, Any]]:
        left = self._wanted - len(self.found.examples)
        room = EXAMPLES_BYTES - sum(map(_size, self.found.examples))
        found: list[dict[str, Any]] = []
        for kind in kinds:
            # The ids first, since a job may be large.
            ids = connection.execute(kind.limit(left - len(found))).scalars().all() if left > len(found) else ()
            for job_id in ids:
                example = self._example(connection, job_id)
                room -= _size(example)
                if room < 0:
                    return found
                found.append(example)
        return found

    def _example(self, connection: Connection, job_id: str) -> dict[str, Any]:
        old, new = (
            connection.execute(select(table).where(table.c.id == job_id)).mappings().first()
            for table in (self._old, self._new)
        )
        if old is None or new is None:
            return {"job": job_id, "fields": {"state": [old and old["state"], new and new["state"]]}}
        differing = {name: [_shown(old[name]), _shown(new[name])] for name in old if old[name] != new[name]}
        return {"job": job_id, "fields": differing}


def _count(connection: Connection, ids: Select[Any]) -> int:
    return connection.execute(select(func.count()).select_from(ids.subquery())).scalar_one()


def _shown(value: Any) -> Any:
    """Return the value of a column as a short plain value."""
    return plainjson.short(value if value is None or isinstance(value, str | int | float) else str(value))


def _size(example: dict[str, Any]) -> int:
    return len(plainjson.dumps(example["fields"]))
