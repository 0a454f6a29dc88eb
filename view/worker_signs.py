"""The last sign of life of each worker, as the active projector has collected them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import delete, select

from jobtape.schemas.messages.worker_sign import GONE_AFTER, SILENT_AFTER, WorkerSign, decode_sign, encode_sign
from jobtape.view import checkpoint, tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

_row = tables.workers.c


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker as it was at its last sign. ``seen_at``: when it came. ``silent``: the next one is overdue."""

    sign: WorkerSign
    seen_at: datetime
    silent: bool

    @property
    def state(self) -> Literal["alive", "draining", "stopped", "silent"]:
        """The state at the last sign, or ``silent``."""
        return "silent" if self.silent else self.sign.state


class WorkerSigns(StorePart):
    """Reads and writes the signs."""

    def note(self, owner: str, signs: Collection[WorkerSign]) -> bool:
        """Write signs, and remove the workers that have stopped or are gone.

        Returns False, and writes nothing, when ``owner`` is not the active projector.
        """
        kept = [sign for sign in signs if sign.state != "stopped"]
        stopped = [storable(sign.id) for sign in signs if sign.state == "stopped"]
        insert = bulk.upsert(self.database.dialect, tables.workers).values(at=NOW)
        insert = insert.on_conflict_do_update(index_elements=["id"], set_={"sign": insert.excluded.sign, "at": NOW})
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            connection.execute(delete(tables.workers).where(_row.id.in_(stopped) | (_row.at < NOW - GONE_AFTER)))
            if kept:
                connection.execute(insert, [{"id": storable(s.id), "sign": _text(s)} for s in kept])
            return True

    def all(self) -> list[SeenWorker]:
        """Return the workers with a sign in the last ``GONE_AFTER`` seconds, by name."""
        statement = select(_row.sign, _row.at, NOW - _row.at).where(_row.at >= NOW - GONE_AFTER)
        with self.database.reading() as connection:
            rows = connection.execute(statement).all()
        found = [
            SeenWorker(sign, datetime.fromtimestamp(at, UTC), age > SILENT_AFTER)
            for text, at, age in rows
            if (sign := decode_sign(text.encode())) is not None
        ]
        return sorted(found, key=lambda each: (each.sign.name, each.sign.started_at))


def _text(sign: WorkerSign) -> str:
    return encode_sign(sign).decode()
