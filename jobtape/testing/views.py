"""New views for tests: SQLite files with empty tables.

Making the tables takes a tenth of a second, and so does compiling the statements of a ``Store``. So the files are
copies of one that is made once in a process, and a path is used again with its ``Store`` when its installation has
ended.
"""

import atexit
import shutil
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

from jobtape.view.store import Store

_lock = threading.Lock()
_free: list[tuple[Path, Store]] = []


def take() -> tuple[Path, Store]:
    """Return the path of a new view, and its store. Call ``give_back`` with them at the end."""
    with _lock:
        empty = _empty_view()
        if _free:
            path, store = _free.pop()
        else:
            path = Path(tempfile.mkdtemp(dir=empty.parent)) / "view.db"
            store = Store(f"sqlite:///{path}")
        shutil.copyfile(empty, path)
    return path, store


def give_back(path: Path, store: Store) -> None:
    """Remove a view that is used no more."""
    store.close()
    for name in ("view.db", "view.db-wal", "view.db-shm"):
        (path.parent / name).unlink(missing_ok=True)
    with _lock:
        _free.append((path, store))


@lru_cache(1)
def _empty_view() -> Path:
    folder = tempfile.mkdtemp(prefix="jobtape-testing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "empty.db"
    store = Store(f"sqlite:///{path}")
    store.migrate()
    store.close()
    return path
