"""Shows a part's own messages whatever the modules with the jobs do to ``logging``.

Theory of operation. ``logging`` is shared by the whole process: ``dictConfig`` and ``fileConfig`` disable every logger
that they do not name, and ``logging.disable`` or new handlers on the root can silence a worker as well. So Jobtape's
own loggers cannot be disabled in a part's process, and a record that no handler has written to the terminal goes to the
part's own handler. Otherwise they behave as users configure them: handlers, levels and filters of ``jobtape`` apply,
and the root's handlers get these records too.
"""

import logging
import sys
from collections.abc import Iterable
from typing import ClassVar

OWN = ("jobtape",)


class ProtectedLogger(logging.Logger):
    """A logger that cannot be disabled. It still has a level of its own."""

    last_handler: ClassVar[logging.Handler]
    """Writes what no other handler has written to the terminal."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Return whether the logger's own level allows ``level``; ``logging.disable`` has no effect."""
        return level >= self.getEffectiveLevel()

    def handle(self, record: logging.LogRecord) -> None:
        """Pass the record to the handlers unless a filter of this logger refuses it."""
        filtered: object = self.filter(record)  # from Python 3.12 on it may be another record
        if filtered:
            self.callHandlers(filtered if isinstance(filtered, logging.LogRecord) else record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Pass the record to the handlers of this logger and its parents, then to the last one if it was not shown."""
        shown = False
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if record.levelno >= handler.level:
                    shown = _handle(handler, record) or shown
            logger = logger.parent if logger.propagate else None
        if not shown:
            self.last_handler.handle(record)


def protect(last_handler: logging.Handler, level: int | str, names: Iterable[str] = OWN) -> None:
    """Protect the loggers ``names`` and all below them from being disabled, and set their level.

    What no other handler shows goes to ``last_handler``.
    """
    ProtectedLogger.last_handler = last_handler
    for name in names:
        logging.getLogger(name).setLevel(level)
    protect_new(names)


def protect_new(names: Iterable[str] = OWN) -> None:
    """Protect loggers that were made since ``protect``: a module makes its own when it is imported."""
    below = tuple(f"{name}." for name in names)
    for name, logger in tuple(logging.Logger.manager.loggerDict.items()):
        if type(logger) is logging.Logger and (name in names or name.startswith(below)):
            logger.__class__ = ProtectedLogger


def _handle(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """Pass the record to ``handler`` and return whether it was written to the terminal."""
    try:
        handled = handler.handle(record)
    except Exception:  # noqa: BLE001 - a user's filter that fails must not stop the code that logs
        return False
    terminal = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    stream = getattr(handler, "stream", None) if isinstance(handler, logging.StreamHandler) else None
    return bool(handled) and (handler is ProtectedLogger.last_handler or any(stream is each for each in terminal))
