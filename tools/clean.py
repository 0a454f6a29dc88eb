"""``make clean``: remove what the project made in this clone, its own broker, and its namespace on a found broker.

Standard library only, since .venv is removed too. Refuses while this clone runs.
"""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from tools.brokers.docker import DockerError, remove_container, remove_volume
from tools.clone import DATA, ROOT, clone_name
from tools.processes.locks import FolderInUseError, FolderLock
from tools.traces import find_traces, read_trace

MADE = (".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", "dist", "build")
# Folders with compiled modules to remove.
CODE = ("schemas", "broker", "view", "producer", "consumer", "jobtape", "tools", "tests", "examples", "benchmarks")
BROKER_LIMIT = 15.0  # seconds


def clean() -> None:
    """Remove everything. Raises FolderInUseError while a run uses the data, DockerError if the container stays."""
    with contextlib.ExitStack() as stack:
        # The node of a run that was killed may still be stopping: its folder's lock waits for that.
        for folder in (DATA, DATA / "node" / "rabbitmq", DATA / "docker"):
            if folder.exists():
                stack.callback(FolderLock(folder).release)
        if (DATA / "docker").exists():
            remove_container(clone_name())
            remove_volume(clone_name())
        for trace in find_traces(DATA):
            _remove_namespace(trace)
        for path in [DATA, *(ROOT / name for name in MADE)]:
            if path.exists():
                print(f"removing {path.relative_to(ROOT)}", flush=True)
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
    for name in CODE:
        for cache in (ROOT / name).rglob("__pycache__"):
            shutil.rmtree(cache)


def _remove_namespace(path: Path) -> None:
    """Remove the clone's own namespace. Others may use one that the user has named."""
    trace = read_trace(path)
    which = f"exchanges and queues {trace.namespace}.* on the broker at {trace.shown}"
    if trace.namespace != clone_name():
        print(f"kept, since you have named it: {which}", flush=True)
        return
    # AMQP needs more than the standard library.
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "tools.clean", str(path)]
    try:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=BROKER_LIMIT + 15)
    except (OSError, subprocess.SubprocessError) as error:
        why = "the .venv is missing" if isinstance(error, FileNotFoundError) else "the broker does not answer"
        print(f"not removed, {why}: {which}", flush=True)
    else:
        print(f"removed {which}", flush=True)


async def remove_from_broker(path: Path) -> None:
    """Remove the exchanges and queues of a trace. Raises what the broker refuses, or TimeoutError."""
    from jobtape.broker.declare import remove_namespace  # noqa: PLC0415 (this part runs in .venv)
    from jobtape.schemas.topology import Topology  # noqa: PLC0415

    trace = read_trace(path)
    async with asyncio.timeout(BROKER_LIMIT):
        await remove_namespace(trace.url, Topology(trace.namespace).with_queues(trace.queues))


if __name__ == "__main__":
    try:
        asyncio.run(remove_from_broker(Path(sys.argv[1]))) if len(sys.argv) > 1 else clean()
    except (FolderInUseError, DockerError) as error:
        sys.exit(str(error))
