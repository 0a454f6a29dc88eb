"""Exit codes and errors of the command line."""

from typing import Final

from jobtape.schemas.errors import JobtapeError

OK: Final = 0
FAILED: Final = 1
WRONG: Final = 2
"""The same call will fail again."""
INTERRUPTED: Final = 130


class WrongUse(JobtapeError):
    """The call is wrong; the message says how to correct it."""


class CannotStart(WrongUse):
    """The configuration is wrong; the message says what to change."""


class BrokenModule(Exception):
    """A user's module could not be imported; the message is its traceback."""
