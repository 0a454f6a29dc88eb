"""What the command line itself may complain of. Exit code 2 means: the same call will fail again."""

from typing import Final

from jobtape.schemas.errors import JobtapeError

WRONG: Final = 2


class WrongUse(JobtapeError):
    """The call makes no sense; the text says what would."""


class CannotStart(WrongUse):
    """The configuration is wrong; the text says what to change."""


class BrokenModule(Exception):
    """A user's module that could not be imported; the text is its own traceback."""
