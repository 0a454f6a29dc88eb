"""A second clone in a folder of its own: `make run` and `make clean` there touch nothing of this one."""

import os
import shutil
import sys
from pathlib import Path

from tools.clone import ROOT


def copy_clone(folder: Path) -> Path:
    """The tools and the examples, in `folder`, with this clone's virtual environment."""
    for name in ("tools", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def plain_environment(**more: str) -> dict[str, str]:
    """The environment without what it says of a Jobtape, and with `more`."""
    ours = ("JOBTAPE_", "RABBITMQ_", "DATABASE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more
