"""Tests output streams that cannot be written to: no command ends with a traceback."""

from pathlib import Path

import pytest

from jobtape.cli import printing as show
from jobtape.cli.output_streams import prepare_streams
from tests.cli.installation import Installation
from tests.cli.test_escaping import EVIL, job


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_output_escapes_letters_that_the_encoding_lacks(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding=encoding) as stream:
        monkeypatch.setattr("sys.stdout", stream)
        prepare_streams()
        show.print_job(job(type="漢字 …"))
        show.print_jobs({"items": [job(type="漢字 …")], "next": None})
        show.print_json(job())
        monkeypatch.undo()
    written = path.read_text(encoding)
    assert ("漢字" if encoding == "utf-8" else "\\u6f22\\u5b57") in written
    assert EVIL not in written


@pytest.mark.parametrize("line", ["jobtape --help >/dev/full", "jobtape --version >/dev/full"])
def test_full_disk_is_one_line(installation: Installation, line: str) -> None:
    done = installation.shell(line)
    assert (done.returncode, done.stderr) == (1, "jobtape: the output cannot be written: No space left on device\n")


def test_closed_pipe_or_stream_causes_no_traceback(installation: Installation) -> None:
    done = installation.shell("PYTHONIOENCODING=ascii jobtape --help | true; jobtape --help >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_argument_that_is_not_text_is_refused(installation: Installation) -> None:
    done = installation.shell("jobtape list --type \"$(printf '\\377')\"")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not valid text" in done.stderr
