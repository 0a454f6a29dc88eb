"""Errors of the command line. Exit code 2 means: the same call will fail again."""

from typing import Final

from jobtape.schemas.errors import JobtapeError

WRONG: Final = 2


class WrongUse(JobtapeError):
    """The call is wrong; the message says how to correct it."""


class CannotStart(WrongUse):
    """The configuration is wrong; the message says what to change."""


class BrokenModule(Exception):
    """A user's module could not be imported; the message is its traceback."""
