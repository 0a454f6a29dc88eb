"""Tests of ``make clean`` in a copy of the clone."""

import subprocess
from pathlib import Path
from uuid import uuid4

import aio_pika
import anyio
import pytest

from jobtape.broker.declare import create_log, declare, depth
from jobtape.schemas.topology import Topology
from tests.conftest import MakeTopology
from tests.tools.copy_of_clone import copy_clone, plain_environment
from tools.clone import clone_name
from tools.processes.locks import FolderLock
from tools.processes.ports import free_port
from tools.traces import Trace, find_traces, read_trace, write_env, write_trace


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


def fill(url: str, topology: Topology) -> None:
    async def go() -> None:
        async with await aio_pika.connect_robust(url) as connection:
            await declare(connection, topology)
            await create_log(connection, topology)

    anyio.run(go)


def queues_left(url: str, topology: Topology) -> list[str]:
    async def go() -> list[str]:
        async with await aio_pika.connect_robust(url) as connection:
            queues = (*topology.declared_queues(), topology.log)
            return [queue.name for queue in queues if await depth(connection, queue.name) is not None]

    return anyio.run(go)


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


def test_clean_removes_own_namespace_and_keeps_a_named_one(
    clone: Path, broker_url: str, make_topology: MakeTopology
) -> None:
    ours = make_topology("default", "mail", namespace=clone_name(clone))
    named = make_topology("default")
    for topology in (ours, named):
        fill(broker_url, topology)
        folder = clone / ".jobtape" / "url-1" / topology.namespace
        folder.mkdir()
        write_trace(folder, broker_url, "amqp://shown/", topology.namespace, topology.queues)
    done = clean(clone)
    assert done.returncode == 0, done.stderr
    assert f"removed exchanges and queues {ours.namespace}.* on the broker at amqp://shown/" in done.stdout
    assert f"kept, since you have named it: exchanges and queues {named.namespace}.*" in done.stdout
    assert queues_left(broker_url, ours) == []
    assert set(queues_left(broker_url, named)) == {queue.name for queue in (named.log, *named.declared_queues())}


def test_clean_reports_a_broker_that_does_not_answer(clone: Path) -> None:
    url = f"amqp://guest:hidden@127.0.0.1:{free_port()}/"
    write_trace(clone / ".jobtape" / "url-1" / "names", url, "amqp://shown/", clone_name(clone), [])
    done = clean(clone)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not removed, the broker does not answer: exchanges and queues" in done.stdout
    assert "hidden" not in done.stdout
    assert not (clone / ".jobtape").exists()


def test_trace_keeps_the_queues_of_earlier_runs(tmp_path: Path) -> None:
    folder = tmp_path / "broker" / "names"
    folder.mkdir(parents=True)
    for queue in ("mail", "default"):
        write_trace(folder, "amqp://me:hidden@host/", "amqp://me@host/", "names", [queue])
    (path,) = find_traces(tmp_path)
    assert read_trace(path) == Trace("amqp://me:hidden@host/", "amqp://me@host/", "names", ("default", "mail"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_shell_reads_the_written_environment(tmp_path: Path) -> None:
    password = uuid4().hex + "'$(exit 1)\" &;"
    settings = {"RABBITMQ_URL": f"amqp://me:{password}@h/", "DATABASE_URL": "sqlite:////a b", "JOBTAPE_NAMESPACE": "n"}
    write_env(tmp_path / "env", {**settings, "JOBTAPE_PORT": "1"})
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    script = f'set -a; . "{tmp_path}/env"; set +a; env'
    shell = {"PATH": "/usr/bin:/bin"}
    shown = subprocess.run(["sh", "-c", script], env=shell, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert all(f"{name}={value}" in lines for name, value in settings.items())
    assert "JOBTAPE_PORT" not in shown.stdout
