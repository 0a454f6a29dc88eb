"""Prepares stdout and stderr, so that no command ends in a traceback because of them."""

import errno
import io
import os
import sys
from typing import Final, TypeVar

from jobtape.cli.log_output import SUPERVISED

UNWRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Error numbers that almost only occur when output is written."""
Code = TypeVar("Code")


def prepare_streams() -> None:
    """Escape characters that a stream's encoding cannot represent, and replace a missing stream by one to nowhere.

    Under a supervisor the streams are UTF-8, whatever the environment says.
    """
    encoding = "utf-8" if SUPERVISED in os.environ else None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def flushed(code: Code) -> Code | int:
    """Flush stdout and return ``code``, or 1 after an error message when that fails.

    A closed pipe (``jobtape list | head``) is not an error.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        return output_failed(error)
    return code


def output_failed(error: OSError) -> int:
    """Print that the output could not be written, and return the exit code."""
    discard_output()
    print(f"jobtape: the output cannot be written: {error.strerror}", file=sys.stderr)
    return 1


def discard_output() -> None:
    """Send stdout to nowhere from now on, because Python would report the same error again when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
