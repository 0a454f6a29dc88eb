"""Writes the log of a part to stderr: one line per record, as text or JSON, with time (UTC), level, part and message.

What is logged during an execution has the fields of ``job_logs`` too.
"""

import json
import logging
import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal

from jobtape.cli.escaping import one_line
from jobtape.process import loggers as own_loggers
from jobtape.telemetry.job_logs import JobFilter, fields_of

LogFormat = Literal["text", "json"]

SUPERVISED: Final = "JOBTAPE_SUPERVISED"
"""The variable that a supervisor sets for the parts it starts."""
KEPT: Final = ("jobtape", "uvicorn.error")
"""Loggers whose messages are shown even when a job module changes the logging configuration."""
# They log every lost connection with a traceback; ``broker.link`` logs the same in one line.
_SILENT: Final = ("aio_pika", "aiormq", "pamqp")
_QUIET: Final = ("alembic", "asyncio", "httpcore", "httpx", "sqlalchemy")
_WORTH_READING: Final = ("Uvicorn running on", "Child process")


class OneLine(logging.Formatter):
    """``2026-01-31T12:00:00.123Z info worker message job_id=…``; line ends in messages and tracebacks are escaped."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = "" if SUPERVISED in os.environ else f"{part} "

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return f"{_time(record.created)} {record.levelname.lower()} {self._part}{one_line(message + fields)}"


class JsonLines(logging.Formatter):
    """One JSON object: ``time``, ``level``, ``part``, ``logger``, ``message``, those of ``job_logs.FIELDS`` that are
    known, and ``exception`` with a traceback.
    """

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        entry = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "part": self._part,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _line(entry)


def json_line(part: str, text: str, *, error: bool) -> str:
    """Return a line that a part has printed, as ``JsonLines`` would; what is one of its lines stays as it is."""
    if text.startswith("{"):
        with suppress(ValueError):
            if {"time", "part", "message"} <= json.loads(text).keys():
                return text
    logger, level = ("stderr", "warning") if error else ("stdout", "info")
    return _line({"time": _time(time.time()), "level": level, "part": part, "logger": logger, "message": text})


def _line(entry: dict[str, Any]) -> str:
    # Escaped, so that every line end in a text is inside of a string.
    return json.dumps(entry, default=str)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(part: str, level: str, form: LogFormat = "text") -> None:
    """Log to stderr everything from ``level`` (``debug`` … ``error``) upwards, in lines of text or of JSON.

    Jobtape's own messages are shown even when a user's module changes the logging configuration (``own_loggers``).
    Under a supervisor the name of the part is left out, because the supervisor writes it before each line.
    """
    root = logging.getLogger()
    root.handlers[:] = [_to_stderr(part, form)]
    root.setLevel(level.upper())
    own_loggers.protect(_to_stderr(part, form), level.upper(), KEPT)
    logging.captureWarnings(True)
    if level == "debug":
        return
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_worth_reading)


def _to_stderr(part: str, form: LogFormat) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(part) if form == "json" else OneLine(part))
    handler.addFilter(JobFilter())
    return handler


def _worth_reading(record: logging.LogRecord) -> bool:
    # From uvicorn show only where it listens, and what happens to its processes.
    return record.levelno > logging.INFO or record.getMessage().startswith(_WORTH_READING)
