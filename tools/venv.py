"""Makes `.venv` with the locked dependencies and the project itself; `make` calls it before everything else.

Run by whatever `python3` is, it must itself say what is wrong with that one: standard library only, in words that
Python 3.6 understands. Prints nothing when `.venv` is up to date. Errors are one line (pip's own last lines before it)
and exit code 1.
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
    """Why there is no environment; the text says what to do."""


def run(*command: str, folder: Optional[Path] = None) -> Tuple[int, str]:
    """Runs a program that asks nothing; its exit code and what it printed, errors included."""
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
    """`(3, 11)` when `python` really runs, None otherwise: a name on the PATH may be a shim with nothing behind it."""
    try:
        code, said = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    except OSError:
        return None
    found = re.match(r"^(\d+)\.(\d+)$", said)
    return (int(found.group(1)), int(found.group(2))) if code == 0 and found else None


def choose_python(running: str, others: List[str]) -> str:
    """The interpreter to build on: the running one if it is new enough, otherwise the first of `others` that is.

    Raises SetupError when there is none.
    """
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
    """Changes when the environment has to be made again: locks, project, Python, or the clone was moved."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((root / name).read_bytes())
    _, version = run(python, "-c", "import sys; print(sys.version)")
    digest.update(f"{version}\n{root}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One at a time in one clone. The folder itself is the lock: nothing is left behind, not even after SIGKILL."""
    if fcntl is None:
        raise SetupError("Windows has no make run: use WSL, or docker compose up.")
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def create(venv: Path, python: str) -> None:
    """Makes an empty environment, in place of a broken one; one that works on the same Python is kept.

    Raises SetupError when Python's venv or ensurepip is missing (Debian has them in a package of their own) or fails.
    """
    inside = str(venv / "bin" / "python")
    if version_of(inside) == version_of(python) and run(inside, "-m", "pip", "--version")[0] == 0:
        return
    if run(python, "-c", "import venv, ensurepip")[0] != 0:
        raise SetupError(f"{python} has no venv: install it (Debian, Ubuntu: apt-get install python3-venv).")
    code, said = run(python, "-m", "venv", "--clear", str(venv))
    if code != 0:
        said = " ".join(said.split())[-300:]
        raise SetupError(f"{python} -m venv failed, mend what it names and run make again: {said}")


def install(venv: Path, root: Path) -> None:
    """Installs the lock and then the project, in editable form; raises SetupError with pip's last lines."""
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
    if os.geteuid() == 0:
        pip.append("--root-user-action=ignore")
    for arguments in (
        ["--require-hashes", "-r", "requirements-dev.lock"],
        ["--no-build-isolation", "--no-deps", "-e", "."],
    ):
        code, said = run(*pip, *arguments, folder=root)
        if code != 0:
            last = "\n".join("  " + line for line in said.splitlines()[-8:])
            raise SetupError(
                f"{last}\npip could not install the packages (its last words are above): "
                "check the network, a proxy (HTTPS_PROXY) and the disk, then run make again."
            )


def ensure(root: Path, running: str, others: List[str]) -> bool:
    """Makes `<root>/.venv` if it isn't up to date; true if there was something to do. Raises SetupError."""
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
        # From inside a virtual environment, .venv perhaps, build on the Python that it was made of.
        ensure(ROOT, getattr(sys, "_base_executable", None) or sys.executable, OTHERS)
    except SetupError as error:
        sys.exit(str(error))
