"""Files travel by reference: a job carries a name, and the file stays in the upload folder that all workers share.

A name is a path below the upload folder, or else below the samples that ship with these examples. Never outside: a
name comes from whoever submits the job.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from examples.settings import Settings

SAMPLES = Path(__file__).with_name("data")

FileName = Annotated[str, Field(min_length=1, max_length=500, description="a path below the upload folder")]


class FileRefused(Exception):
    """The name leads outside the upload folder, to nothing, or to a file that is too large."""


def find(name: str, max_bytes: int) -> Path:
    """The file of that name. Raises FileRefused with the reason; symbolic links are followed before it is judged."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or "\\" in name:
        raise FileRefused(f"{name!r} is no name for an uploaded file: give a path below the upload folder")
    uploads = Settings().files
    for root in (uploads, SAMPLES):
        path = (root / parts).resolve()
        if not path.is_file():
            continue
        if not path.is_relative_to(root.resolve()):
            raise FileRefused(f"{name!r} leads outside the upload folder")
        if (size := path.stat().st_size) > max_bytes:
            raise FileRefused(f"{name!r} has {size:,} bytes, more than the {max_bytes:,} that are allowed")
        return path
    raise FileRefused(f"there is no file {name!r} in the upload folder {uploads}: upload it first, on this machine")
