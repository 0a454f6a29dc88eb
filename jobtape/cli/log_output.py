"""Writes the log of a part to stderr: one line per record, with time (UTC), level, part and message."""

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Final

from jobtape.cli.escaping import one_line
from jobtape.process import loggers as own_loggers

SUPERVISED: Final = "JOBTAPE_SUPERVISED"
"""The variable that a supervisor sets for the parts it starts."""
KEPT: Final = ("jobtape", "uvicorn.error")
"""Loggers whose messages are shown even when a job module changes the logging configuration."""
# They log every lost connection with a traceback; ``broker.link`` logs the same in one line.
_SILENT: Final = ("aio_pika", "aiormq", "pamqp")
_QUIET: Final = ("alembic", "asyncio", "httpcore", "httpx", "sqlalchemy")
_WORTH_READING: Final = ("Uvicorn running on", "Child process")


class OneLine(logging.Formatter):
    """``2026-01-31T12:00:00.123Z info worker message``; line ends in messages and tracebacks are escaped."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = "" if SUPERVISED in os.environ else f"{part} "

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return f"{time} {record.levelname.lower()} {self._part}{one_line(message)}"


def configure(part: str, level: str) -> None:
    """Log to stderr everything from ``level`` (``debug`` … ``error``) upwards.

    Jobtape's own messages are shown even when a user's module changes the logging configuration (``own_loggers``).
    Under a supervisor the name of the part is left out, because the supervisor writes it before each line.
    """
    root = logging.getLogger()
    root.handlers[:] = [_to_stderr(part)]
    root.setLevel(level.upper())
    own_loggers.protect(_to_stderr(part), level.upper(), KEPT)
    logging.captureWarnings(True)
    if level == "debug":
        return
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_worth_reading)


def _to_stderr(part: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(part))
    return handler


def _worth_reading(record: logging.LogRecord) -> bool:
    # From uvicorn show only where it listens, and what happens to its processes.
    return record.levelno > logging.INFO or record.getMessage().startswith(_WORTH_READING)
