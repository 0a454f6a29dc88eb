"""Profiles a CSV file of any length in one pass, row by row, in bounded memory."""

import csv
import gzip
from collections.abc import Iterator
from typing import IO, Annotated, cast

from pydantic import BaseModel, Field

from examples.columns import Column, ColumnProfile
from examples.files import FileName, find
from jobtape import Context, job

MAX_FILE_BYTES = 2_000_000_000
MAX_LINE_BYTES = 1_000_000
MAX_COLUMNS = 200
ROWS_BETWEEN_REPORTS = 2_000


class CsvRefused(Exception):
    """The file is not a CSV file that can be profiled; the message names the line."""


class CsvProfile(BaseModel):
    """The profile of a file.

    ``rows`` does not count the header. ``ragged_rows`` counts rows with more or fewer fields than the header: absent
    fields count as missing, additional fields are ignored.
    """

    rows: int
    ragged_rows: int
    columns: list[ColumnProfile]


@job("csv.profile", queue="files", timeout=600)
def profile_csv(
    ctx: Context,
    file: FileName,
    delimiter: Annotated[str, Field(pattern=r"^[,;|\t]$")] = ",",
) -> CsvProfile:
    """Profile a CSV file (UTF-8, a header in its first row, ``.gz`` allowed), with progress by the bytes read.

    Raises FileRefused and CsvRefused.
    """
    path = find(file, MAX_FILE_BYTES)
    size = path.stat().st_size
    columns: list[Column] | None = None
    rows = ragged = 0
    with path.open("rb") as raw:
        for fields in _rows(raw, path.suffix == ".gz", delimiter):
            if columns is None:
                columns = _header(fields)
                continue
            rows += 1
            if len(fields) != len(columns):
                ragged += 1
                fields = fields[: len(columns)] + [""] * (len(columns) - len(fields))  # noqa: PLW2901
            for column, value in zip(columns, fields, strict=True):
                column.add(value)
            if rows % ROWS_BETWEEN_REPORTS == 0:
                ctx.progress(raw.tell() / size, f"{rows:,} rows")
    if columns is None:
        raise CsvRefused("the file is empty: its first row must be the header")
    ctx.progress(1, f"{rows:,} rows")
    return CsvProfile(rows=rows, ragged_rows=ragged, columns=[column.profile() for column in columns])


def _header(fields: list[str]) -> list[Column]:
    if len(fields) > MAX_COLUMNS:
        raise CsvRefused(f"line 1: {len(fields)} columns, more than the {MAX_COLUMNS} allowed; is the delimiter right?")
    names = [name.replace("\0", "\ufffd").strip()[:100] for name in fields]
    return [Column(name or f"column {number}") for number, name in enumerate(names, start=1)]


def _rows(raw: IO[bytes], zipped: bool, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty. Raises CsvRefused with the line where reading ended."""
    with cast(IO[bytes], gzip.open(raw)) if zipped else raw as unzipped:
        reader = csv.reader(_lines(unzipped), delimiter=delimiter, strict=True)
        try:
            yield from (row for row in reader if row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise CsvRefused(f"after line {reader.line_num}: {error}") from error
        except (EOFError, OSError) as error:  # gzip raises these for a broken or truncated file
            raise CsvRefused(f"after line {reader.line_num}: the compressed file is broken: {error}") from error


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines. Lines have a maximum length, so that a file without line ends cannot fill the memory."""
    encoding = "utf-8-sig"  # the first line may begin with a byte order mark
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise csv.Error(f"a line of more than {MAX_LINE_BYTES:,} bytes")
        yield line.decode(encoding)
        encoding = "utf-8"
