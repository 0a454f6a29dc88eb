"""Make ``.venv`` with the locked dependencies and the project itself. ``make`` calls it before everything else.

It runs on any ``python3`` and must say itself if that one is too old. So it uses the standard library and the syntax of
Python 3.6 only. Prints nothing if ``.venv`` is up to date. An error is one line, after pip's last lines.
"""
# ruff: noqa: UP006, UP035, UP045  (3.6 has neither list[str] nor str | None)

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

try:
    import fcntl
except ImportError:  # Windows; locked() says so
    fcntl = None  # type: ignore[assignment]

OLDEST = (3, 11)
OTHERS = ["python3.13", "python3.12", "python3.11", "python3.14", "python3"]
ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("requirements.lock", "requirements-dev.lock", "pyproject.toml")


class SetupError(Exception):
    """Why there is no environment, and what to do."""


def run(*command: str, folder: Optional[Path] = None) -> Tuple[int, str]:
    """Run a program without input. Return its exit code and what it printed, errors included."""
    done = subprocess.run(
        command,
        cwd=str(folder) if folder else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace").strip()


def version_of(python: str) -> Optional[Tuple[int, int]]:
    """Return its version, like ``(3, 11)``, or None if it does not run: the name may be that of a shim."""
    try:
        code, printed = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    except OSError:
        return None
    found = re.match(r"^(\d+)\.(\d+)$", printed)
    return (int(found.group(1)), int(found.group(2))) if code == 0 and found else None


def choose_python(running: str, others: List[str]) -> str:
    """Return the first interpreter that is new enough: ``running`` or one of ``others``. Raises SetupError."""
    for python in [running, *others]:
        path = shutil.which(python)
        version = version_of(path) if path else None
        if path and version and version >= OLDEST:
            return path
    here = ".".join(str(part) for part in version_of(running) or sys.version_info[:2])
    raise SetupError(
        f"Python {here} is too old: install Python 3.11 or later, or name one with `make PY=/path/to/python3.11 ...`."
    )


def fingerprint(root: Path, python: str) -> str:
    """Return a digest of all that the environment depends on: locks, project, Python and the clone's path."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((root / name).read_bytes())
    _, version = run(python, "-c", "import sys; print(sys.version)")
    digest.update(f"{version}\n{root}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block. The folder itself is locked, so that no lock file is left behind."""
    if fcntl is None:
        raise SetupError("Windows has no make run: use WSL, or docker compose up.")
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def create(venv: Path, python: str) -> None:
    """Make an empty environment, unless there is one that works on the same Python.

    Raises SetupError if Python's venv or ensurepip fails or is missing (Debian has them in another package).
    """
    inside = str(venv / "bin" / "python")
    if version_of(inside) == version_of(python) and run(inside, "-m", "pip", "--version")[0] == 0:
        return
    if run(python, "-c", "import venv, ensurepip")[0] != 0:
        raise SetupError(f"{python} has no venv: install it (Debian, Ubuntu: apt-get install python3-venv).")
    code, printed = run(python, "-m", "venv", "--clear", str(venv))
    if code != 0:
        raise SetupError(f"{python} -m venv failed. Mend this and run make again: {' '.join(printed.split())[-300:]}")


def install(venv: Path, root: Path) -> None:
    """Install the locked packages, then the project in editable form. Raises SetupError with pip's last lines."""
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
    if os.geteuid() == 0:
        pip.append("--root-user-action=ignore")
    for arguments in ("--require-hashes -r requirements-dev.lock", "--no-build-isolation --no-deps -e ."):
        code, printed = run(*pip, *arguments.split(), folder=root)
        if code != 0:
            last = "\n".join("  " + line for line in printed.splitlines()[-8:])
            raise SetupError(
                f"{last}\npip could not install the packages (its last lines are above): "
                "check the network, a proxy (HTTPS_PROXY) and the disk, then run make again."
            )


def ensure(root: Path, running: str, others: List[str]) -> bool:
    """Make ``<root>/.venv`` if it is not up to date. Return whether it was made. Raises SetupError."""
    venv = root / ".venv"
    stamp = venv / "jobtape.stamp"
    with locked(root):
        python = choose_python(running, others)
        wanted = fingerprint(root, python)
        if (venv / "bin" / "python").exists() and stamp.exists() and stamp.read_text() == wanted:
            return False
        print("Installing the dependencies into .venv (a minute or so the first time) ...", flush=True)
        if stamp.exists():
            stamp.unlink()
        create(venv, python)
        install(venv, root)
        stamp.write_text(wanted)
    return True


if __name__ == "__main__":
    try:
        # Inside a virtual environment, use the Python that it was made with.
        ensure(ROOT, getattr(sys, "_base_executable", None) or sys.executable, OTHERS)
    except SetupError as error:
        sys.exit(str(error))
