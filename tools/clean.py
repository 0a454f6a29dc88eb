"""`make clean`: removes what the project made in this clone, the container and volume of the clone's own broker, and
the clone's own namespace on a broker that was found.

Standard library only, since .venv goes as well. Refuses while a run of this clone is going on.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.brokers.docker import DockerError, remove_container, remove_volume
from tools.brokers.node_files import end_leftover_node
from tools.clone import DATA, ROOT, clone_name
from tools.processes.locks import FolderInUseError, FolderLock
from tools.traces import find_traces, read_trace

MADE = (".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", "dist", "build")
# Where compiled modules lie; not below .venv, which is gone, nor in folders that are the user's own.
CODE = ("schemas", "broker", "view", "producer", "consumer", "jobtape", "tools", "tests", "examples", "benchmarks")


def clean() -> None:
    """Does it; raises FolderInUseError when a run uses the data."""
    with _alone(DATA):
        _stop_brokers(DATA)
        for trace in find_traces(DATA):
            _remove_namespace(trace)
        for path in [DATA, *(ROOT / name for name in MADE)]:
            _remove(path)
    for folder in CODE:
        for cache in (ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(cache)


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    lock = FolderLock(data) if data.exists() else None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _remove(path: Path) -> None:
    if not path.exists():
        return
    print(f"removing {path.relative_to(ROOT)}", flush=True)
    path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _stop_brokers(data: Path) -> None:
    for folder in (data / "node" / "rabbitmq", data / "docker"):
        if folder.exists():
            lock = FolderLock(folder)
            if end_leftover_node(folder):
                print("stopped the private RabbitMQ node of an earlier run", flush=True)
            lock.release()
    if (data / "docker").exists():
        remove_container(clone_name())
        remove_volume(clone_name())


def _remove_namespace(path: Path) -> None:
    """Only the clone's own: one that the user named may be others' as well."""
    trace = read_trace(path)
    place = f"exchanges and queues {trace.namespace}.* on the broker at {trace.shown}"
    if trace.namespace != clone_name():
        print(f"left alone, since you named it: {place}", flush=True)
        return
    # AMQP needs more than the standard library: .venv has it, and goes after this.
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "tools.namespace", str(path)]
    try:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        why = "its .venv is gone" if isinstance(error, FileNotFoundError) else "it doesn't answer"
        print(f"left behind, {why}: {place}", flush=True)
    else:
        print(f"removed {place}", flush=True)


if __name__ == "__main__":
    try:
        clean()
    except (FolderInUseError, DockerError) as error:
        sys.exit(str(error))
