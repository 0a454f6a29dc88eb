"""Compares the serving generation of the view with that of a rebuild.

One step compares a range of ids. When its statements take too long, the database ends them, and the step is repeated
with half as many jobs. The progress is saved as a task that exists as long as the rebuild, so that another process can
continue.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Table, case, exists, func, or_, select

from jobtape.schemas import plainjson
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.maintenance.rebuilds import comparison_task
from jobtape.view.maintenance.tasks import Tasks
from jobtape.view.sql.database import Database
from jobtape.view.values import Differences, RebuildState

MOST_JOBS: Final = 1_000
FEWEST_JOBS: Final = 30
"""The limits of the number of jobs in one step."""
EXAMPLES_BYTES: Final = 250_000
"""Of all examples together: they become a part of a job's result, which is limited too."""
FIELDS: Final = tuple(column.name for column in tables.jobs.columns)
_Pair = tuple[str | None, str | None]
"""The states of jobs in the serving and in the new generation; None where they are missing."""


class ViewComparison:
    """Compares ``rebuild`` with the serving generation, and continues where the progress was saved.

    ``examples``: the highest number of examples of each pair of states. Only jobs without an event after the
    rebuild's cursor are compared.
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
        differs = or_(*(old[name].is_distinct_from(new[name]) for name in FIELDS))
        changed = func.sum(case((differs, 1), else_=0))
        states = select(old.state, new.state, func.count(), changed).select_from(both).where(compared)
        changes = select(old.id).select_from(both).where(compared & differs)
        without = self._old.outerjoin(self._new, old.id == new.id)
        missing = select(old.id).select_from(without).where(compared, new.id.is_(None))
        pruned = exists(select(tables.tombstones.c.job_id).where(tables.tombstones.c.job_id == new.id))
        alone = self._new.outerjoin(self._old, old.id == new.id)
        added = select(new.id).select_from(alone).where(new.id > self._after, new.id <= end, old.id.is_(None), ~pruned)
        found, before = _Found(), self.found
        for serving, rebuilt, jobs, n in connection.execute(states.group_by(old.state, new.state)):
            kind = changes.where(old.state == serving, new.state == rebuilt)
            found.add(serving, rebuilt, jobs, n, kind)
        for serving, jobs in _by_state(connection, missing, old.state):
            found.add(serving, None, jobs, jobs, missing.where(old.state == serving))
        for rebuilt, jobs in _by_state(connection, added, new.state):
            found.add(None, rebuilt, jobs, jobs, added.where(new.state == rebuilt))
        return Differences(
            compared=before.compared + found.compared,
            states=_added(before.states, found.rows),
            changed=before.changed + found.changed,
            missing=before.missing + found.missing,
            added=before.added + found.added,
            examples=[*before.examples, *self._examples(connection, found.kinds)],
        )

    def _examples(self, connection: Connection, kinds: Mapping[_Pair, Select[Any]]) -> list[dict[str, Any]]:
        room = EXAMPLES_BYTES - sum(map(_size, self.found.examples))
        known = Counter((each["serving"], each["rebuilt"]) for each in self.found.examples)
        found: list[dict[str, Any]] = []
        for pair, kind in kinds.items():
            left = self._wanted - known[pair]
            # The ids first, since a job may be large.
            ids = connection.execute(kind.limit(left)).scalars().all() if left > 0 else ()
            for job_id in ids:
                example = self._example(connection, job_id)
                room -= _size(example)
                if room < 0:
                    return found
                found.append(example)
        return found

    def _example(self, connection: Connection, job_id: str) -> dict[str, Any]:
        old, new = (
            dict(connection.execute(select(table).where(table.c.id == job_id)).mappings().first() or {})
            for table in (self._old, self._new)
        )
        pairs = {name: (old.get(name), new.get(name)) for name in FIELDS}
        fields = {name: [_shown(one), _shown(other)] for name, (one, other) in pairs.items() if one != other}
        return {"job": job_id, "serving": old.get("state"), "rebuilt": new.get("state"), "fields": fields}


@dataclass
class _Found:
    """What one step has found. ``kinds``: the ids of the jobs that differ, for each pair of states."""

    compared: int = 0
    changed: int = 0
    missing: int = 0
    added: int = 0
    rows: list[tuple[_Pair, int, int]] = field(default_factory=list)
    kinds: dict[_Pair, Select[Any]] = field(default_factory=dict)

    def add(self, serving: str | None, rebuilt: str | None, jobs: int, changed: int, ids: Select[Any]) -> None:
        if rebuilt is None:
            self.missing += jobs
        elif serving is None:
            self.added += jobs
        else:
            self.compared += jobs
            self.changed += changed
        self.rows.append(((serving, rebuilt), jobs, changed))
        if changed:
            self.kinds[serving, rebuilt] = ids


def _by_state(connection: Connection, ids: Select[Any], state: ColumnElement[str]) -> list[tuple[str, int]]:
    rows = connection.execute(ids.with_only_columns(state, func.count()).group_by(state))
    return [(name, jobs) for name, jobs in rows]


def _added(before: list[dict[str, Any]], rows: list[tuple[_Pair, int, int]]) -> list[dict[str, Any]]:
    """Return the counts of ``before`` and of the ``rows``, sorted."""
    found = {(each["serving"], each["rebuilt"]): (each["jobs"], each["changed"]) for each in before}
    for pair, jobs, changed in rows:
        earlier = found.get(pair, (0, 0))
        found[pair] = (earlier[0] + jobs, earlier[1] + changed)
    ordered = sorted(found.items(), key=lambda entry: (entry[0][0] or "", entry[0][1] or ""))
    return [
        {"serving": serving, "rebuilt": rebuilt, "jobs": jobs, "changed": changed}
        for (serving, rebuilt), (jobs, changed) in ordered
    ]


def _shown(value: Any) -> Any:
    """Return the value of a column as a short plain value."""
    return plainjson.short(value if value is None or isinstance(value, str | int | float) else str(value))


def _size(example: dict[str, Any]) -> int:
    return len(plainjson.dumps(example["fields"]))
