"""Installs the locked npm packages, and runs their programs with the Node in ``.venv`` or on the PATH."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.clone import ROOT

HERE: Final = Path(__file__).parent
PACKAGES: Final = HERE / "node_modules"
OLDEST: Final = 20
_LIMIT: Final = 300.0  # seconds
_RETRIES: Final = ("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=3000")
"""npm itself would wait for more than a minute where there is no registry."""


class NpmError(Exception):
    """Why the packages cannot be used, and what to do."""


def ensure_packages() -> None:
    """Install the packages of ``package-lock.json`` unless they are there. Raises NpmError."""
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    installed = PACKAGES / ".installed"
    if installed.exists() and installed.read_text() == lock:
        return
    _node()
    if (npm := _program("npm")) is None:
        raise NpmError("npm is not installed: make venv, or install it (Debian, Ubuntu: apt-get install npm)")
    print("Installing the packages that check the dashboard's front end ...", flush=True)
    try:
        done = subprocess.run(
            [npm, "ci", "--silent", *_RETRIES],
            cwd=HERE,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NpmError(f"npm ci took more than {_LIMIT:g} s: check the network or a proxy") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise NpmError(f"npm ci failed: {last}")
    installed.write_text(lock)


def run(program: str, *arguments: str) -> int:
    """Run a program of the packages in the clone's folder, and return its exit code. Raises NpmError."""
    ensure_packages()
    return subprocess.run(
        [_node(), str((PACKAGES / ".bin" / program).resolve()), *arguments], cwd=ROOT, env=_environment(), check=False
    ).returncode


def _program(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def _node() -> str:
    if (node := _program("node")) is None:
        raise NpmError(f"Node is not installed: make venv brings it, or install Node {OLDEST} or later")
    shown = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if int(shown.removeprefix("v").partition(".")[0] or 0) < OLDEST:
        raise NpmError(f"{node} is Node {shown or 'of an unknown version'}: install Node {OLDEST} or later")
    return node


def _environment() -> dict[str, str]:
    # npm starts `node` by its name.
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
