"""When the latest placement of each slow rate was, for a projector that takes over. Not part of the fold."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import delete, select

from jobtape.schemas.gates import Gate
from jobtape.view import tables
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

KEPT: Final = 31 * 86_400.0
"""Seconds."""

_row = tables.rates.c


class Rates(StorePart):
    """Times are in seconds since 1970, by the clock of the projector's host."""

    def latest(self) -> dict[Gate, float]:
        """Return the times of the latest placements."""
        with self.database.reading() as connection:
            rows = connection.execute(select(_row.name, _row.key, _row.at)).all()
        return {(name, key): at for name, key, at in rows}

    def note(self, latest: Mapping[Gate, float]) -> None:
        """Note the times of placements that are about to be published. Old ones are removed."""
        with self.database.writing() as connection:
            connection.execute(delete(tables.rates).where(_row.at < NOW - KEPT))
            insert = bulk.upsert(connection.dialect.name, tables.rates)
            statement = insert.on_conflict_do_update(index_elements=["name", "key"], set_={"at": insert.excluded.at})
            connection.execute(statement, [{"name": name, "key": key, "at": at} for (name, key), at in latest.items()])
