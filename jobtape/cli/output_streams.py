"""The standard streams of the command line: whatever they are, they end no command in a traceback."""

import errno
import io
import os
import sys
from typing import Final, TypeVar

from jobtape.cli.log_output import SUPERVISED

UNWRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What goes wrong where output is written, and hardly elsewhere."""
Code = TypeVar("Code")


def prepare_streams() -> None:
    """Write what a stream's encoding does not have as an escape, and to nowhere what has no stream at all.

    What a supervisor reads is UTF-8, whatever the environment asks for.
    """
    encoding = "utf-8" if SUPERVISED in os.environ else None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def flushed(code: Code) -> Code | int:
    """``code``, once everything is written; 1 where it could not be, after a line about it.

    Nobody being left to read it (``jobtape list | head``) is no fault.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        return output_failed(error)
    return code


def output_failed(error: OSError) -> int:
    """Say that the output could not be written; the exit code."""
    discard_output()
    print(f"jobtape: the output cannot be written: {error.strerror}", file=sys.stderr)
    return 1


def discard_output() -> None:
    """Write to nowhere from now on: Python would complain once more of what cannot be written when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
