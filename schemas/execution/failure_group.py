"""Groups failures that have the same cause, as far as their texts show it: job type, reason, exception, and the place
in the user's own code.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Final

from pydantic import Field

from jobtape.schemas.job import ErrorInfo

FailureId = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
_LONGEST: Final = 200
"""Characters of an exception's name, a path or a function: all of them may be made by user code."""
_FRAME: Final = re.compile(r'^(?:  | *\| +)File "([^"\n]+)", line (\d+), in (.+)$', re.MULTILINE)
_CHAINED: Final = (
    "\nThe above exception was the direct cause of the following exception:\n",
    "\nDuring handling of the above exception, another exception occurred:\n",
)
_NOT_OWN: Final = re.compile(
    r"/(?:site|dist)-packages/|/lib/python\d\.\d+/|^<|/jobtape/(?:broker|builtin|client|consumer|producer|schemas|view)/"
)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one cause. ``id``: 12 hexadecimal digits. ``error``: the name of the exception's class. ``where``:
    the last two parts of a file's path and the function, such as ``app/images.py in shrink``; None without a traceback.
    """

    id: str
    type: str
    reason: str
    error: str
    where: str | None


def group_of(job_type: str, reason: str, error: ErrorInfo) -> FailureGroup:
    """Return the group of a failed attempt."""
    return _group(job_type, reason, error.type, error.traceback)


@lru_cache(maxsize=256)  # attempts often fail in the same way
def _group(job_type: str, reason: str, error: str, traceback: str | None) -> FailureGroup:
    frame = None if traceback is None else _own_frame(traceback)
    # Without line number and folder: a release of new code is no new failure, nor is another machine.
    where = None if frame is None else f"{_short(frame[0])} in {frame[2][:_LONGEST]}"
    error = error[:_LONGEST]
    text = "\0".join((job_type, reason, error, where or ""))
    return FailureGroup(blake2b(text.encode(), digest_size=6).hexdigest(), job_type, reason, error, where)


def line_of(error: ErrorInfo) -> int | None:
    """Return the line number in the file of the group's ``where``; None without a traceback."""
    frame = None if error.traceback is None else _own_frame(error.traceback)
    return None if frame is None else int(frame[1])


def _short(path: str) -> str:
    return "/".join(path.rsplit("/", 2)[-2:])[-_LONGEST:]


def _own_frame(traceback: str) -> tuple[str, str, str] | None:
    """Return path, line and function of the innermost frame of the user's own code: of the last exception, or else of
    its causes, or else of any code.
    """
    last = max(traceback.rfind(mark) for mark in _CHAINED)
    frames = [*_frames(traceback, max(0, last)), *_frames(traceback, 0)]
    own = (frame for frame in frames if not _NOT_OWN.search(frame[0]))
    return next(own, frames[0] if frames else None)


def _frames(traceback: str, start: int) -> Iterator[tuple[str, str, str]]:
    """Return path, line and function of the frames after ``start``, the innermost first."""
    for path, line, function in reversed(_FRAME.findall(traceback, start)):
        yield path.replace("\\", "/"), line, function
