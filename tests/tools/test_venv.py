"""Tests of the set-up of ``.venv``: it says in one line what is wrong with a machine."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools import venv
from tools.venv import SetupError, choose_python, create, ensure, fingerprint, install, locked

HELD = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def program(path: Path, script: str) -> str:
    """Write an executable shell script that acts as another interpreter. Return its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone with only the files that the set-up reads."""
    for name in venv.INPUTS:
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


def test_old_python_can_parse_the_set_up() -> None:
    ast.parse(Path(venv.__file__).read_text(), feature_version=(3, 6))


def test_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = program(tmp_path / "python3", "echo 3.8")
    with pytest.raises(SetupError) as refusal:
        choose_python(old, [])
    assert str(refusal.value).startswith("Python 3.8 is too old: install Python 3.11 or later")
    assert "\n" not in str(refusal.value)


def test_newer_python_that_runs_is_chosen(tmp_path: Path) -> None:
    old = program(tmp_path / "python3", "echo 3.8")
    shim = program(tmp_path / "python3.13", "echo 'python3.13: command not found'; exit 127")
    assert choose_python(old, [shim, str(tmp_path / "missing"), sys.executable]) == sys.executable


def test_python_without_venv_is_refused_with_the_package(tmp_path: Path) -> None:
    bare = program(tmp_path / "python3", f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"')
    with pytest.raises(SetupError, match="apt-get install python3-venv") as refusal:
        create(tmp_path / ".venv", bare)
    assert "\n" not in str(refusal.value)


def test_failed_pip_shows_its_last_lines_and_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "requirements-dev.lock").write_text(f"nothing-of-this-name==1 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError) as failure:
        install(Path(sys.prefix), root)
    assert "nothing-of-this-name" in str(failure.value)
    assert "check the network, a proxy" in str(failure.value).splitlines()[-1]


def test_up_to_date_environment_is_kept(root: Path) -> None:
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (root / ".venv" / "jobtape.stamp").write_text(fingerprint(root, sys.executable))
    assert ensure(root, sys.executable, []) is False


@pytest.mark.parametrize("name", venv.INPUTS)
def test_changed_input_changes_the_fingerprint(root: Path, name: str) -> None:
    before = fingerprint(root, sys.executable)
    (root / name).write_text("# another")
    assert fingerprint(root, sys.executable) != before


def test_moved_clone_changes_the_fingerprint(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in venv.INPUTS:
        (moved / name).write_bytes((root / name).read_bytes())
    assert fingerprint(moved, sys.executable) != fingerprint(root, sys.executable)


def test_only_one_process_makes_the_environment(root: Path) -> None:
    attempt = [sys.executable, "-c", HELD, str(root)]
    with locked(root):
        assert subprocess.run(attempt, capture_output=True, check=False).returncode != 0
    assert subprocess.run(attempt, check=False).returncode == 0
    assert {path.name for path in root.iterdir()} == set(venv.INPUTS)
