"""Tests of ``make clean`` in a copy of the clone."""

import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from tests.tools.copy_of_clone import copy_clone, plain_environment
from tools.processes.locks import FolderLock
from tools.run import write_env


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    copy = copy_clone(tmp_path)
    (copy / ".jobtape" / "url-1" / "names").mkdir(parents=True)
    return copy


def clean(clone: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(clone / ".venv" / "bin" / "python"), "-m", "tools.clean"]
    return subprocess.run(
        command, cwd=clone, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False
    )


def test_clean_is_refused_while_the_clone_runs(clone: Path) -> None:
    lock = FolderLock(clone / ".jobtape")
    refused = clean(clone)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "stop it with Ctrl-C first" in refused.stderr
    assert (clone / ".venv").exists()
    lock.release()
    done = clean(clone)
    assert done.returncode == 0, done.stderr
    assert not (clone / ".jobtape").exists()
    assert not (clone / ".venv").exists()


def test_clean_names_what_stays_on_a_broker_that_was_found(clone: Path) -> None:
    done = clean(clone)
    assert done.returncode == 0, done.stderr
    assert "not removed: exchanges and queues names.* on a broker that was found; delete them there" in done.stdout


def test_shell_reads_the_written_environment(tmp_path: Path) -> None:
    password = uuid4().hex + "'$(exit 1)\" &;"
    settings = {"RABBITMQ_URL": f"amqp://me:{password}@h/", "DATABASE_URL": "sqlite:////a b", "JOBTAPE_NAMESPACE": "n"}
    write_env(tmp_path / "env", {**settings, "JOBTAPE_HOST": "0.0.0.0", "JOBTAPE_PORT": "1"})
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    script = f'set -a; . "{tmp_path}/env"; set +a; env'
    shell = {"PATH": "/usr/bin:/bin"}
    shown = subprocess.run(["sh", "-c", script], env=shell, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert all(f"{name}={value}" in lines for name, value in settings.items())
    assert "JOBTAPE_URL=http://127.0.0.1:1" in lines
    assert "JOBTAPE_PORT" not in shown.stdout
