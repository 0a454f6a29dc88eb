"""Converts jobs and history entries to rows and back, without loss. A row to write has all columns in their order.

A JSON column has SQL's NULL for None, so None, ``{}`` and ``""`` remain different. Times are written as ISO 8601 text,
which both databases accept; ``tables.UtcTime`` reads them as times.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import to_json

from jobtape.schemas import plainjson
from jobtape.schemas.job import ErrorInfo, Job, JobState, Progress, replace
from jobtape.schemas.queueing.gates import Gates
from jobtape.view.packing import pack
from jobtape.view.tables import utc_text
from jobtape.view.values import HistoryRow, UnreadableRow

Row = tuple[Any, ...]

_FIELDS: Final = tuple(field.name for field in fields(Job))
_values: Final = attrgetter(*_FIELDS)
_STATE: Final = _FIELDS.index("state")
_JSON_NAMES: Final = ("payload", "result", "error", "progress", "labels", "gates", "follow_ups", "signals")
_JSON: Final = tuple(map(_FIELDS.index, _JSON_NAMES))
_SUPERSEDED: Final = _FIELDS.index("superseded")
_BOOLEANS: Final = (_FIELDS.index("imported"), _FIELDS.index("has_slots"))
_TIMES: Final = tuple(map(_FIELDS.index, ("submitted_at", "run_at", "started_at", "finished_at", "deferred_since")))
_NONE: Final = Job(id="", type="", state=JobState.QUEUED, run=1, attempt=1)
_JOB: Final[TypeAdapter[Job]] = TypeAdapter(Job)


def _plain(text: str | None) -> Any:
    return None if text is None else plainjson.loads(text.encode())


@lru_cache(maxsize=1000)
def gates_from_text(text: str) -> Gates:
    """Return the gates of a job. Many jobs have the same, so some texts are kept."""
    return Gates.model_validate_json(text)


def job_to_row(job: Job) -> Row:
    """Return the row of table ``jobs``."""
    row = list(_values(job))
    row[_STATE] = job.state.value
    for index in _JSON:
        if row[index] is not None:
            row[index] = plainjson.dumps(row[index]).decode()
    row[_SUPERSEDED] = plainjson.dumps(job.superseded).decode() if job.superseded else None
    for index in _TIMES:
        if row[index] is not None:
            row[index] = utc_text(row[index])
    return tuple(row)


def job_from_row(row: Sequence[Any]) -> Job:
    """Return the job of a row of table ``jobs``, whose columns are in the order of the job's fields."""
    values = dict(zip(_FIELDS, row, strict=True))
    values["state"] = JobState(values["state"])
    for name in ("payload", "result", "labels", "follow_ups", "signals"):
        values[name] = _plain(values[name])
    values["superseded"] = tuple(_plain(values["superseded"]) or ())
    if values["error"] is not None:
        values["error"] = ErrorInfo.model_validate_json(values["error"])
    if values["gates"] is not None:
        values["gates"] = gates_from_text(values["gates"])
    if values["progress"] is not None:
        values["progress"] = Progress.model_validate_json(values["progress"])
    return replace(_NONE, **values)


def job_from_driver(row: Sequence[Any]) -> Job:
    """Return the job of a row as the driver returned it, which is text for the times in a SQLite file."""
    values = list(row)
    for index in _TIMES:
        if isinstance(values[index], str):
            values[index] = datetime.fromisoformat(values[index])
    for index in _BOOLEANS:
        values[index] = bool(values[index])
    return job_from_row(values)


def history_to_row(entry: HistoryRow) -> Row:
    """Return the row of table ``history``."""
    return (
        entry.cursor,
        entry.job_id,
        entry.name,
        utc_text(entry.time),
        entry.accepted,
        entry.state.value,
        entry.reason,
        pack(entry.event),
        None if entry.snapshot is None else _snapshot(entry.snapshot),
    )


def history_from_row(row: Any) -> HistoryRow:
    """Return the entry of a row of table ``history``."""
    return HistoryRow(
        row.cursor, row.job_id, row.name, row.time, row.accepted, JobState(row.state), row.reason, row.event
    )


def _snapshot(job: Job) -> str:
    """Return the JSON of an open job, which has no result, without its payload, which never changes."""
    values = {name: value for name, value in zip(_FIELDS, _values(job), strict=True) if value is not None}
    values.pop("payload", None)
    return to_json(values).decode()


def job_from_snapshot(snapshot: str, payload: str | None) -> Job:
    """Return the job of a snapshot. ``payload``: that of its row in ``jobs``, used if it was known then."""
    job = _JOB.validate_json(snapshot)
    return job if job.submitted_at is None else replace(job, payload=_plain(payload))


def unreadable_to_row(entry: UnreadableRow) -> Row:
    """Return the row of table ``unreadable``."""
    return (entry.cursor, storable(entry.reason), entry.body)


def storable(text: str) -> str:
    """Escape NUL and lone surrogates, which PostgreSQL refuses, in a text for people."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
