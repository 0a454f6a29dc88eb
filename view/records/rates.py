"""Notes of moments for a projector that takes over: when the latest placement of each slow rate was, when the jobs of a
debounce key began to come, and when the rules were published again. Not part of the fold.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import delete, select

from jobtape.schemas.queueing.gates import LONGEST_RATE, Gate
from jobtape.view import tables
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

KEPT: Final = LONGEST_RATE + 86_400.0
"""Seconds."""

_row = tables.rates.c


class Rates(StorePart):
    """Times are in seconds since 1970, by the clock of the projector's host."""

    def latest(self) -> dict[Gate, float]:
        """Return all notes."""
        with self.database.reading() as connection:
            rows = connection.execute(select(_row.name, _row.key, _row.at)).all()
        return {(name, key): at for name, key, at in rows}

    def latest_of(self, gate: Gate) -> float | None:
        """Return what is noted of one gate."""
        with self.database.reading() as connection:
            where = (_row.name == gate[0]) & (_row.key == gate[1])
            at: float | None = connection.execute(select(_row.at).where(where)).scalar()
            return at

    def note(self, latest: Mapping[Gate, float]) -> None:
        """Note the times of what is about to be published. Old ones are removed."""
        with self.database.writing() as connection:
            connection.execute(delete(tables.rates).where(_row.at < NOW - KEPT))
            insert = bulk.upsert(connection.dialect.name, tables.rates)
            statement = insert.on_conflict_do_update(index_elements=["name", "key"], set_={"at": insert.excluded.at})
            connection.execute(statement, [{"name": name, "key": key, "at": at} for (name, key), at in latest.items()])
