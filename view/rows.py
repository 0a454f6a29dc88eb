"""Converts jobs and history entries to rows and back, without loss.

A JSON column has SQL's NULL for None, so None, ``{}`` and ``""`` remain different. Times are written as ISO 8601 text,
which both databases accept; ``tables.UtcTime`` reads them as times.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import to_json

from jobtape.schemas import plainjson
from jobtape.schemas.job import ErrorInfo, Job, JobState, Progress
from jobtape.view.tables import utc_text
from jobtape.view.values import HistoryRow, UnreadableRow

Row = dict[str, Any]

_FIELDS: Final = tuple(field.name for field in fields(Job))
TIMES: Final = ("submitted_at", "run_at", "started_at", "finished_at", "deferred_since")
_values: Final = attrgetter(*_FIELDS)
_JOB: Final[TypeAdapter[Job]] = TypeAdapter(Job)


def _plain(text: str | None) -> Any:
    return None if text is None else plainjson.loads(text.encode())


def job_to_row(job: Job) -> Row:
    """Return the row of table ``jobs``."""
    row = dict(zip(_FIELDS, _values(job), strict=True))
    row["state"] = job.state.value
    row["superseded"] = job.superseded or None
    for name in ("payload", "result", "error", "progress", "labels", "superseded"):
        if row[name] is not None:
            row[name] = plainjson.dumps(row[name]).decode()
    for name in TIMES:
        if row[name] is not None:
            row[name] = utc_text(row[name])
    return row


def job_from_row(row: Sequence[Any]) -> Job:
    """Return the job of a row of table ``jobs``, whose columns are in the order of the job's fields."""
    values = dict(zip(_FIELDS, row, strict=True))
    values["state"] = JobState(values["state"])
    for name in ("payload", "result", "labels"):
        values[name] = _plain(values[name])
    values["superseded"] = tuple(_plain(values["superseded"]) or ())
    if values["error"] is not None:
        values["error"] = ErrorInfo.model_validate_json(values["error"])
    if values["progress"] is not None:
        values["progress"] = Progress.model_validate_json(values["progress"])
    return Job(**values)


def history_to_row(entry: HistoryRow) -> Row:
    """Return the row of table ``history``."""
    after = {name: value for name, value in zip(_FIELDS, _values(entry.after), strict=True) if value is not None}
    after.pop("payload", None)
    after.pop("result", None)
    return {
        "cursor": entry.cursor,
        "job_id": entry.job_id,
        "event_id": entry.event_id,
        "name": entry.name,
        "time": utc_text(entry.time),
        "accepted": entry.accepted,
        "event": entry.event,
        "after": to_json(after).decode(),
        "state": entry.after.state.value,
        "run": entry.after.run,
        "attempt": entry.after.attempt,
        "reason": entry.after.reason,
    }


def history_from_row(row: Any) -> HistoryRow:
    """Return the entry of a row of table ``history``. Its ``after`` has neither payload nor result."""
    after = after_from_text(row.after)
    return HistoryRow(row.cursor, row.job_id, row.event_id, row.name, row.time, row.accepted, row.event, after)


def after_from_text(after: str) -> Job:
    """Decode the ``after`` of a history row, which has neither payload nor result."""
    return _JOB.validate_json(after)


def job_as_of(after: str, payload: str | None) -> Job:
    """Decode the ``after`` of a history row, and add the ``payload`` of its row in ``jobs`` if it was known then."""
    job = after_from_text(after)
    return job if job.submitted_at is None else replace(job, payload=_plain(payload))


def unreadable_to_row(entry: UnreadableRow) -> Row:
    """Return the row of table ``unreadable``."""
    return {"cursor": entry.cursor, "reason": storable(entry.reason), "body": entry.body}


def storable(text: str) -> str:
    """Escape NUL and lone surrogates, which PostgreSQL refuses, in a text for people."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
