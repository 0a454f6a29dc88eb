"""``make clean``: remove what the project made in this clone, and its own broker.

What it made on a broker that was found stays there: removing it needs AMQP, and with it a .venv that works. Standard
library only, since .venv is removed too. Refuses while this clone runs.
"""

import contextlib
import shutil
import sys

from tools.brokers.docker import DockerError, remove_container, remove_volume
from tools.clone import DATA, ROOT, clone_name
from tools.processes.locks import FolderInUseError, FolderLock

MADE = (
    *(".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", "dist", "build"),
    "tools/front_end/node_modules",
)
# Folders with compiled modules to remove.
CODE = ("schemas", "broker", "view", "producer", "consumer", "jobtape", "tools", "tests", "examples", "benchmarks")


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
        for namespace in sorted({folder.name for folder in DATA.glob("url-*/*")}):
            print(f"not removed: exchanges and queues {namespace}.* on a broker that was found; delete them there")
        for path in [DATA, *(ROOT / name for name in MADE)]:
            if path.exists():
                print(f"removing {path.relative_to(ROOT)}", flush=True)
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
    for name in CODE:
        for cache in (ROOT / name).rglob("__pycache__"):
            shutil.rmtree(cache)


if __name__ == "__main__":
    try:
        clean()
    except (FolderInUseError, DockerError) as error:
        sys.exit(str(error))
