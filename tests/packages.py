"""Find programs that tests need, and install their Debian packages, one process at a time."""

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tools.brokers import apt

T = TypeVar("T")


def find_installed(find: Callable[[], T | None]) -> T | None:
    """Return what ``find`` returns while no other test process installs anything, so that the program is complete."""
    with _locked():
        return find()


def ensure_installed(find: Callable[[], T | None], package: str) -> T:
    """Return what ``find`` returns, after installing ``package`` if that is None. Raises AptError."""
    with _locked():
        found = find()
        if found is None:
            apt.install(package, lambda line: print(line, flush=True))
            found = find()
    if found is None:
        raise apt.AptError(f"the package {package} does not contain the program")
    return found


@contextmanager
def _locked() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / "jobtape-test-packages.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
