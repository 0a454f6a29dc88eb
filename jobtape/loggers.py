"""Keeps the messages of a part's own in sight, whatever the modules with the jobs do to ``logging``.

Theory of operation. Logging is one for the whole process: ``dictConfig`` and ``fileConfig`` switch off every logger
that exists and that they do not name, and ``logging.disable`` or other handlers on the root silence a worker as well.
So in a part's process Jobtape's own loggers cannot be switched off, and a record that no handler has written to the
terminal goes to the part's own handler. In all else they are what users configure: handlers, levels and filters that
are set for ``jobtape``, and the root's handlers, get these records too.
"""

import logging
import sys
from collections.abc import Iterable
from typing import ClassVar

OURS = ("jobtape",)


class OwnLogger(logging.Logger):
    """A logger that cannot be switched off; a level of its own counts."""

    last: ClassVar[logging.Handler]
    """Writes what nobody else has written to the terminal."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """By the level alone."""
        return level >= self.getEffectiveLevel()

    def handle(self, record: logging.LogRecord) -> None:
        """Hand it to the handlers, unless a filter of this logger refuses it."""
        kept: object = self.filter(record)  # from Python 3.12 on it may be another record
        if kept:
            self.callHandlers(kept if isinstance(kept, logging.LogRecord) else record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Hand it to the handlers of this logger and of those above, and to the last one when it is not shown yet."""
        shown = False
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if record.levelno >= handler.level:
                    shown = _show(handler, record) or shown
            logger = logger.parent if logger.propagate else None
        if not shown:
            self.last.handle(record)


def keep(last: logging.Handler, level: int | str, names: Iterable[str] = OURS) -> None:
    """From now on the loggers ``names``, and all below them, cannot be switched off; what nobody shows goes to
    ``last``. ``level`` is theirs.
    """
    OwnLogger.last = last
    for name in names:
        logging.getLogger(name).setLevel(level)
    adopt(names)


def adopt(names: Iterable[str] = OURS) -> None:
    """Do so for those that were made since: a module makes its own when it is imported."""
    below = tuple(f"{name}." for name in names)
    for name, logger in tuple(logging.Logger.manager.loggerDict.items()):
        if type(logger) is logging.Logger and (name in names or name.startswith(below)):
            logger.__class__ = OwnLogger


def _show(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """Whether it went to the terminal. A handler of the user's that fails is not to stop who logs."""
    try:
        handled = handler.handle(record)
    except Exception:  # noqa: BLE001 - a filter of the user's may raise anything
        return False
    terminal = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    stream = getattr(handler, "stream", None) if isinstance(handler, logging.StreamHandler) else None
    return bool(handled) and (handler is OwnLogger.last or any(stream is each for each in terminal))
