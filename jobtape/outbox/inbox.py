"""Keeps a handler's effect in the user's database to once for each run: ``async with ctx.once(session) as first:``.

Theory of operation. A row with job and run is inserted in the transaction of the effect. Both are committed together or
not at all. A second execution of the same run finds the row. If both run at the same time, the second one waits for the
end of the first one's transaction: the primary key allows one row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobtape.outbox.sessions import AsyncTransaction, SyncTransaction, is_async, within, within_async
from jobtape.outbox.tables import INBOX
from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.execution.context import Context

_c = INBOX.c
_INSERTS: Final[dict[str, Callable[..., Any]]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


class First:
    """True if no execution of this run has been here before, otherwise false."""

    def __init__(self, first: bool, result: Any = None) -> None:
        self._first = first
        self.result = result
        """What an execution sets in the block is recorded, as JSON, and later ones find it here; None otherwise."""

    def __bool__(self) -> bool:
        return self._first


@dataclass(slots=True)
class Once:
    """The block of ``ctx.once``, for ``with`` or ``async with``."""

    context: Context
    session: SyncTransaction | AsyncTransaction
    step: str
    _first: First | None = None

    def __enter__(self) -> First:
        if is_async(self.session):
            raise JobtapeError("write `async with ctx.once(session)` for an asynchronous session")
        first = within(self.session, INBOX, self._begin)  # type: ignore[arg-type]
        self._first = first
        return first

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._has_result():
            within(self.session, INBOX, self._record)  # type: ignore[arg-type]

    async def __aenter__(self) -> First:
        if not is_async(self.session):
            raise JobtapeError("write `with ctx.once(session)` for a synchronous session")
        first = await within_async(self.session, INBOX, self._begin)  # type: ignore[arg-type]
        self._first = first
        return first

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None and self._has_result():
            await within_async(self.session, INBOX, self._record)  # type: ignore[arg-type]

    def _begin(self, connection: Connection) -> First:
        # A shadow run changes nothing.
        if not self.context.shadow and self._insert(connection):
            return First(True)
        recorded = connection.scalar(select(_c.result).where(*self._key()))
        return First(False, None if recorded is None else plainjson.loads(recorded.encode()))

    def _insert(self, connection: Connection) -> bool:
        make = _INSERTS[connection.dialect.name]
        values = {"job_id": self.context.job_id, "run": self.context.run, "step": self.step}
        added: Any = make(INBOX).values(values).on_conflict_do_nothing().returning(_c.job_id)
        return connection.execute(added).first() is not None

    def _has_result(self) -> bool:
        return bool(self._first) and self._first is not None and self._first.result is not None

    def _record(self, connection: Connection) -> None:
        assert self._first is not None
        if (fault := plainjson.fault(self._first.result)) is not None:
            raise JobtapeError(f"the result of ctx.once cannot be recorded: {fault}")
        text = plainjson.dumps(self._first.result).decode()
        connection.execute(update(INBOX).where(*self._key()).values(result=text))

    def _key(self) -> tuple[Any, ...]:
        return _c.job_id == self.context.job_id, _c.run == self.context.run, _c.step == self.step
