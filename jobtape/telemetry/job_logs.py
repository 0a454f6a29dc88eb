"""Adds to each log record the execution during which it was logged.

``JobFilter`` is for handlers of ``logging``, also users' own: their formats can then use ``%(job_id)s`` and the other
names of ``FIELDS``.
"""

import logging
from typing import Any, Final

from jobtape.schemas.execution.context import current
from jobtape.telemetry import tracing

FIELDS: Final = ("job_id", "job_type", "run", "attempt", "trace_id", "span_id")
"""The attributes of a record; those that are not known are None."""


class JobFilter(logging.Filter):
    """Sets the attributes ``FIELDS`` of each record that passes, and lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attributes that the record does not have yet."""
        for name, value in _now().items():
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        return True


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes of a record that are known."""
    found = {name: getattr(record, name, None) for name in FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def _now() -> dict[str, Any]:
    context = current.get()
    trace_id, span_id = tracing.ids()
    job = (None,) * 4 if context is None else (context.job_id, context.job_type, context.run, context.attempt)
    return dict(zip(FIELDS, (*job, trace_id, span_id), strict=True))
