"""Finds the files that jobs name. The files are in the upload folder, which all workers share.

A name is a path below the upload folder or below the samples of these examples, and never outside, because anybody who
submits a job chooses the name.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from examples.settings import Settings

SAMPLES = Path(__file__).with_name("data")

FileName = Annotated[str, Field(min_length=1, max_length=500, description="a path below the upload folder")]


class FileRefused(Exception):
    """The path is outside the upload folder, does not exist, or names a file that is too large."""


def find(name: str, max_bytes: int) -> Path:
    """Return the file of that name. Symbolic links are followed before the check. Raises FileRefused."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or "\\" in name:
        raise FileRefused(f"{name!r} is not the name of an uploaded file: give a path below the upload folder")
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
