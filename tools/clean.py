"""`make clean`: removes what the project made in this clone, and the container and volume of the clone's own broker.

Standard library only, since .venv goes as well. Refuses while a run of this clone is going on.
"""

import shutil
import sys
from pathlib import Path

from tools.clone import DATA, ROOT, clone_name
from tools.docker import DockerError, remove_container, remove_volume
from tools.node_files import end_leftover_node
from tools.processes import FolderInUseError, FolderLock

MADE = (".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", "dist", "build")
# Where compiled modules lie; not below .venv, which is gone, nor in folders that are the user's own.
CODE = ("schemas", "broker", "view", "producer", "consumer", "jobtape", "tools", "tests", "examples", "benchmarks")


def clean() -> None:
    """Does it; raises FolderInUseError when a run uses the data."""
    _stop_brokers(DATA)
    for path in [DATA, *(ROOT / name for name in MADE)]:
        if path.exists():
            print(f"removing {path.relative_to(ROOT)}", flush=True)
            shutil.rmtree(path)
    for folder in CODE:
        for cache in (ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(cache)


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


if __name__ == "__main__":
    try:
        clean()
    except (FolderInUseError, DockerError) as error:
        sys.exit(str(error))
