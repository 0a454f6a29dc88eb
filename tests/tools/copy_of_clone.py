"""A second clone for tests of ``make run`` and ``make clean``, which change nothing in this one."""

import os
import shutil
import sys
from pathlib import Path

from tools.clone import ROOT


def copy_clone(folder: Path) -> Path:
    """Copy the tools and the examples into ``folder``, with a link to this clone's ``.venv``. Return ``folder``."""
    for name in ("tools", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def plain_environment(**more: str) -> dict[str, str]:
    """Return the environment without variables for Jobtape and its servers, and with ``more``."""
    ours = ("JOBTAPE_", "RABBITMQ_", "DATABASE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more
