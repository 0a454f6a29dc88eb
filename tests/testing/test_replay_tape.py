"""``replay_tape``: the jobs of an exported tape with other handlers."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from jobtape import job
from jobtape.cli.tape.export import export
from jobtape.schemas.messages.tape_file import TapeFileInvalid, TapeHeader
from jobtape.testing import memory, replay_tape
from jobtape.view.store import Store
from tests.testing import jobs


@job("add")
def add_text(x: int, y: int) -> str:
    return str(x + y)


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape with three jobs that succeeded, one that failed and one that is open."""
    path = tmp_path_factory.mktemp("tape") / "prod.ndjson.gz"
    with memory(jobs.ALL) as jt:
        for n in range(3):
            jobs.add.submit_sync(x=n, y=n)
        jobs.broken.submit_sync()
        jt.drain_sync()
        jobs.add.submit_sync(x=9, y=9)
        jt.jobs()
        store = Store(jt.settings.database_url)
        header = TapeHeader("an-export", jt.settings.namespace, 0, store.committed.reach().head)
        export(store, path, header)
        store.close()
    return path


def test_replay_tape_accepts_same_outcomes(tape: Path) -> None:
    replayed = replay_tape(tape, types=[jobs.add, jobs.broken])
    assert (replayed.jobs, replayed.by_type) == (4, {"add": 3, "broken": 1})


def test_replay_tape_names_kinds_of_differences(tape: Path) -> None:
    other: Any = add_text
    with pytest.raises(AssertionError, match=r"3 of 3 jobs[\s\S]*add result: number → text, 3 jobs"):
        replay_tape(tape, types=[other])


def test_replay_tape_refuses_to_compare_nothing(tape: Path) -> None:
    with pytest.raises(AssertionError, match="nothing was compared"):
        replay_tape(tape, types=[jobs.greet])


def test_replay_tape_refuses_broken_file(tape: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ndjson.gz"
    cut.write_bytes(tape.read_bytes()[:-20])
    with pytest.raises(TapeFileInvalid):
        replay_tape(cut, types=[jobs.add])
    with gzip.open(cut, "wb") as file:
        file.write(b"{}\n")
    with pytest.raises(TapeFileInvalid):
        replay_tape(cut, types=[jobs.add])
