"""Profiles a CSV file of any length in one pass, row by row, in bounded memory."""

import csv
import gzip
import math
from collections.abc import Iterator
from typing import IO, Annotated, cast

from pydantic import BaseModel, Field

from examples.files import FileName, find
from jobtape import Context, job

MAX_FILE_BYTES = 2_000_000_000
MAX_LINE_BYTES = 1_000_000
MAX_COLUMNS = 200
ROWS_BETWEEN_REPORTS = 2_000


class CsvRefused(Exception):
    """The file is not a CSV file that can be profiled; the message names the line."""


class ColumnProfile(BaseModel):
    """A column: how many rows have a value, how many have none, and the mean, least and greatest of its numbers.

    Text that is no finite number counts as a value only, so ``numbers`` may be less than ``count``.
    """

    name: str
    count: int = 0
    missing: int = 0
    numbers: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None

    def add(self, text: str) -> None:
        """Add the value of one row. One that is empty or blank is missing."""
        if not text.strip():
            self.missing += 1
            return
        self.count += 1
        try:
            number = float(text)
        except ValueError:
            return
        if math.isfinite(number):
            self.numbers += 1
            self.min = number if self.min is None else min(self.min, number)
            self.max = number if self.max is None else max(self.max, number)
            self.mean = number if self.mean is None else self.mean + (number - self.mean) / self.numbers


class CsvProfile(BaseModel):
    """The profile of a file. ``rows`` does not count the header."""

    rows: int
    columns: list[ColumnProfile]


@job("csv.profile", queue="files", timeout=600)
def profile_csv(
    ctx: Context,
    file: FileName,
    delimiter: Annotated[str, Field(pattern=r"^[,;|\t]$")] = ",",
) -> CsvProfile:
    """Profile a CSV file (UTF-8, a header in its first row, ``.gz`` allowed), with progress by the bytes read.

    A row that is too short has missing values; fields beyond the header are ignored. Raises FileRefused and CsvRefused.
    """
    path = find(file, MAX_FILE_BYTES)
    size = path.stat().st_size
    count = 0
    with path.open("rb") as raw:
        rows = _rows(raw, path.suffix == ".gz", delimiter)
        header = next(rows, [])
        if not 0 < len(header) <= MAX_COLUMNS:
            raise CsvRefused(f"line 1: a header of 1 to {MAX_COLUMNS} columns is needed, this one has {len(header)}")
        columns = [ColumnProfile(name=name.replace("\0", "\ufffd")[:100]) for name in header]
        for count, fields in enumerate(rows, start=1):
            for column, value in zip(columns, fields + [""] * len(columns), strict=False):
                column.add(value)
            if count % ROWS_BETWEEN_REPORTS == 0:
                ctx.progress(raw.tell() / size, f"{count:,} rows")
    ctx.progress(1, f"{count:,} rows")
    return CsvProfile(rows=count, columns=columns)


def _rows(raw: IO[bytes], zipped: bool, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty. Raises CsvRefused with the line where reading ended."""
    with cast(IO[bytes], gzip.open(raw)) if zipped else raw as unzipped:
        reader = csv.reader(_lines(unzipped), delimiter=delimiter, strict=True)
        try:
            yield from filter(None, reader)
        except (csv.Error, UnicodeDecodeError, EOFError, OSError) as error:  # gzip raises the last two
            raise CsvRefused(f"after line {reader.line_num}: {error}") from error


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines. Lines have a maximum length, so that a file without line ends cannot fill the memory."""
    encoding = "utf-8-sig"  # the first line may begin with a byte order mark
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise csv.Error(f"a line of more than {MAX_LINE_BYTES:,} bytes")
        yield line.decode(encoding)
        encoding = "utf-8"
