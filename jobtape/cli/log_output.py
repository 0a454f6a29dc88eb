"""The log of a part: one line per event on stderr, with time (UTC), level, part and message."""

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Final

from jobtape import loggers as own_loggers
from jobtape.cli.escaping import one_line

SUPERVISED: Final = "JOBTAPE_SUPERVISED"
"""The variable that a supervisor sets for the parts it starts."""
KEPT: Final = ("jobtape", "uvicorn.error")
"""Whose messages are shown whatever the modules with the jobs do to logging."""
# They log every lost connection with tracebacks; ``broker.link`` says the same in one line.
_SILENT: Final = ("aio_pika", "aiormq", "pamqp")
_QUIET: Final = ("alembic", "asyncio", "httpcore", "httpx", "sqlalchemy")
_WORTH_READING: Final = ("Uvicorn running on", "Child process")


class OneLine(logging.Formatter):
    """``2026-01-31T12:00:00.123Z info worker message``; a line end in the message is escaped, a traceback's too."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = "" if SUPERVISED in os.environ else f"{part} "

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return f"{time} {record.levelname.lower()} {self._part}{one_line(message)}"


def configure(part: str, level: str) -> None:
    """Send everything that is logged in this process to stderr, from ``level`` (``debug`` … ``error``) upwards.

    What Jobtape itself says is shown even when a module of the user's configures logging again (``loggers``).
    Under a supervisor, which writes it before each line anyway, the name of the part is left out.
    """
    root = logging.getLogger()
    root.handlers[:] = [_to_stderr(part)]
    root.setLevel(level.upper())
    own_loggers.keep(_to_stderr(part), level.upper(), KEPT)
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
    # Of uvicorn's own news only where it listens and what became of its processes.
    return record.levelno > logging.INFO or record.getMessage().startswith(_WORTH_READING)
