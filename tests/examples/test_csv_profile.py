"""Tests ``csv.profile`` with the sample file, against a simple computation of the figures, and with broken files."""

import csv
import gzip
import hashlib
import logging
import statistics
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from examples.columns import MAX_DISTINCT, ColumnProfile
from examples.csv_profile import CsvProfile, CsvRefused
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


def column(values: list[str], uploads: Path) -> ColumnProfile:
    """Return the profile of a column with these values. A second column prevents empty lines, which are skipped."""
    (uploads / "column.csv").write_text("name,other\n" + "".join(f'"{value}",x\n' for value in values))
    return run("column.csv").columns[0]


@pytest.mark.parametrize("name", ["utc_offsets.csv.gz", "rocket.jpg"])
def test_samples_match_the_readme(name: str) -> None:
    digest = hashlib.sha256((SAMPLES / name).read_bytes()).hexdigest()
    assert f"{digest}  {name}\n" in (SAMPLES / "README.md").read_text()


def test_profile_of_real_file_is_right(uploads: Path) -> None:
    reports: list[Progress] = []
    profile = run(SAMPLE.name, reports)
    with gzip.open(SAMPLE, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    assert (profile.rows, profile.ragged_rows) == (len(rows), 0) == (143_280, 0)
    assert [one.name for one in profile.columns] == header
    for number, found in enumerate(profile.columns):
        values = [row[number] for row in rows if row[number]]
        assert (found.count, found.missing) == (len(values), len(rows) - len(values))
        counts = Counter(values)
        assert (found.distinct, found.distinct_is_at_least) == (len(counts), False)
        assert [top.count for top in found.top] == [count for _, count in counts.most_common(5)]
        assert all(counts[top.value] == top.count for top in found.top)
        if found.name in NUMBERS:
            numbers = [float(value) for value in values]
            assert (found.min, found.max) == (min(numbers), max(numbers))
            assert found.mean == pytest.approx(statistics.fmean(numbers), rel=1e-9)
        else:
            assert (found.min, found.max, found.mean) == (min(values), max(values), None)
    assert [one.type for one in profile.columns] == [
        *("text", "text", "number", "number", "time", "integer", "integer", "integer", "text")
    ]
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) == 143_280 // 2_000 + 1


def test_memory_does_not_grow_with_the_file(uploads: Path) -> None:
    with gzip.open(uploads / "long.csv.gz", "wt", compresslevel=1) as file:
        file.write("id,text\n")
        file.writelines(f"{number},{'x' * 80}{number}\n" for number in range(200_000))  # 19 MB
    tracemalloc.start()
    try:
        first = run("long.csv.gz").columns[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    assert (first.type, first.count, first.max) == ("integer", 200_000, 199_999)
    assert (first.distinct, first.distinct_is_at_least, first.top) == (MAX_DISTINCT + 1, True, [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", "+3"], "integer"),
        (["1", "2.5"], "number"),
        (["2.5", "1", "1e3"], "number"),
        (["1", "9" * 19], "number"),
        (["2020-01-01", "2020-01-01T10:00:00+02:00"], "time"),
        (["1", "2020-01-01"], "text"),
        (["2020-01-01", "x", "1"], "text"),
        (["nan", "inf"], "text"),
        (["1_000"], "text"),
        (["", " "], "empty"),
    ],
)
def test_type_is_the_narrowest_that_fits(values: list[str], expected: str, uploads: Path) -> None:
    found = column(values, uploads)
    assert found.type == expected
    assert (found.mean is not None) == (expected in ("integer", "number"))


def test_result_of_any_file_can_be_recorded(uploads: Path) -> None:
    (uploads / "odd.csv").write_bytes(
        b"\xef\xbb\xbfa\0,,\n1e308,\0," + b"z" * 50_000 + b"\n1e308,9223372036854775808,\n"
    )
    recorded = profile_csv.result(run("odd.csv"))
    assert [one["name"] for one in recorded["columns"]] == ["a\ufffd", "column 2", "column 3"]
    assert recorded["columns"][0]["mean"] is None
    assert len(recorded["columns"][2]["max"]) < 100


def test_ragged_rows_are_counted(uploads: Path) -> None:
    (uploads / "ragged.csv").write_text('a;b\n1;2\n3\n\n4;5;6\n"7;7";"8\n8"\n')
    profile = run("ragged.csv", delimiter=";")
    assert (profile.rows, profile.ragged_rows) == (4, 2)
    assert [(one.count, one.missing) for one in profile.columns] == [(4, 0), (3, 1)]
    assert profile.columns[1].max == "8\n8"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", b"", "empty"),
        ("latin.csv", "a\nGrüße\n".encode("latin-1"), "after line 1: .*utf-8"),
        ("quote.csv", b'a\n"open', "after line 2: unexpected end of data"),
        ("long.csv", b"a\n" + b"x" * 1_000_001, "a line of more than 1,000,000 bytes"),
        ("wide.csv", b"," * 300, "301 columns"),
        ("torn.csv.gz", SAMPLE.read_bytes()[:100_000], "the compressed file is broken"),
        ("plain.csv.gz", b"a,b\n1,2\n", "the compressed file is broken"),
    ],
)
def test_malformed_csv_is_refused_with_the_line(name: str, content: bytes, reason: str, uploads: Path) -> None:
    (uploads / name).write_bytes(content)
    with pytest.raises(CsvRefused, match=reason):
        run(name)


def test_name_outside_the_upload_folder_is_refused(uploads: Path) -> None:
    with pytest.raises(FileRefused):
        run("../outside.csv")
