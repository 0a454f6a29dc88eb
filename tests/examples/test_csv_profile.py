"""Tests ``csv.profile`` with the sample file, against a simple computation of the figures, and with broken files."""

import csv
import gzip
import hashlib
import logging
import statistics
import tracemalloc
from pathlib import Path

import pytest

from examples.csv_profile import ColumnProfile, CsvProfile, CsvRefused
from examples.files import SAMPLES, FileRefused
from examples.jobs import profile_csv
from jobtape import Context
from jobtape.schemas.job import Progress

SAMPLE = SAMPLES / "utc_offsets.csv.gz"
NUMBERS = {"latitude", "longitude", "unix", "offset", "dst"}


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBTAPE_EXAMPLE_FILES", str(tmp_path))
    return tmp_path


def run(file: str, reports: list[Progress] | None = None, delimiter: str = ",") -> CsvProfile:
    seen: list[Progress] = [] if reports is None else reports
    ctx = Context("a-job", "csv.profile", 1, 1, logging.getLogger(__name__), seen.append)
    profile = profile_csv(ctx, file, delimiter)
    assert isinstance(profile, CsvProfile)
    return profile


@pytest.mark.parametrize("name", [SAMPLE.name, "rocket.jpg"])
def test_samples_match_the_readme(name: str) -> None:
    digest = hashlib.sha256((SAMPLES / name).read_bytes()).hexdigest()
    assert f"{digest}  {name}\n" in (SAMPLES / "README.md").read_text()


def test_sample_gives_the_figures_of_a_simple_computation(uploads: Path) -> None:
    with gzip.open(SAMPLE, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    reports: list[Progress] = []
    profile = run(SAMPLE.name, reports)
    assert profile.rows == len(rows) == 143_280
    assert [column.name for column in profile.columns] == header
    for found, values in zip(profile.columns, zip(*rows, strict=True), strict=True):
        present = [value for value in values if value]
        assert (found.count, found.missing) == (len(present), len(rows) - len(present))
        if found.name in NUMBERS:
            numbers = [float(value) for value in present]
            assert (found.numbers, found.min, found.max) == (len(numbers), min(numbers), max(numbers))
            assert found.mean == pytest.approx(statistics.fmean(numbers), rel=1e-9)
        else:
            assert (found.numbers, found.min, found.max, found.mean) == (0, None, None, None)
    fractions = [report.fraction for report in reports]
    assert len(fractions) > 50
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_memory_does_not_grow_with_the_file(uploads: Path) -> None:
    with gzip.open(uploads / "long.csv.gz", "wt", compresslevel=1) as file:
        file.write("number\n")
        file.writelines(f"{n}\n" for n in range(60_000))
    tracemalloc.start()
    try:
        assert run("long.csv.gz").columns[0].max == 59_999
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_short_rows_have_missing_values_and_more_fields_are_ignored(uploads: Path) -> None:
    (uploads / "ragged.csv").write_text('\ufeffa;b\n1;2\n3\n\n5;5;6\n"7;7";"8\n8"\n')
    profile = run("ragged.csv", delimiter=";")
    assert profile == CsvProfile(
        rows=4,
        columns=[
            ColumnProfile(name="a", count=4, numbers=3, min=1, max=5, mean=3),
            ColumnProfile(name="b", count=3, missing=1, numbers=2, min=2, max=5, mean=3.5),
        ],
    )


def test_result_can_be_recorded_whatever_the_file_has(uploads: Path) -> None:
    (uploads / "odd.csv").write_bytes(b'"nul\x00",nan,inf\nnan,1e999,-inf\n')
    recorded = profile_csv.result(run("odd.csv"))
    assert [(column["name"], column["count"], column["mean"]) for column in recorded["columns"]] == [
        ("nul\ufffd", 1, None),
        ("nan", 1, None),
        ("inf", 1, None),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", b"", "line 1: a header of 1 to 200 columns"),
        ("latin.csv", "a\nGrüße\n".encode("latin-1"), "after line 1: .*utf-8"),
        ("quote.csv", b'a\n"open', "after line 2: unexpected end of data"),
        ("long.csv", b"a\n" + b"x" * 1_000_001, "a line of more than 1,000,000 bytes"),
        ("wide.csv", b"," * 300, "this one has 301"),
        ("torn.csv.gz", SAMPLE.read_bytes()[:100_000], "after line .*Compressed file ended"),
        ("plain.csv.gz", b"a,b\n1,2\n", "after line 0: Not a gzipped file"),
    ],
)
def test_malformed_csv_is_refused_with_the_line(name: str, content: bytes, reason: str, uploads: Path) -> None:
    (uploads / name).write_bytes(content)
    with pytest.raises(CsvRefused, match=reason):
        run(name)


def test_file_outside_the_upload_folder_is_refused(uploads: Path) -> None:
    with pytest.raises(FileRefused):
        run("../outside.csv")
