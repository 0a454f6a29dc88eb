"""New views for tests: SQLite files with empty tables.

Making the tables takes a tenth of a second. So the files are copies of one that is made once in a process. When an
installation has ended, its file is emptied and used again, with its ``Store``: its connections are open, and its
statements are compiled.
"""

import atexit
import shutil
import sqlite3
import tempfile
import threading
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from jobtape.view.store import Store

_lock = threading.Lock()
_free: list[Store] = []


class EmptyView(Store):
    """A view whose tables exist."""

    def migrate(self) -> None:
        """Do nothing."""


def take() -> Store:
    """Return an empty view. Call ``give_back`` at the end."""
    with _lock:
        if _free:
            return _free.pop()
        empty = _empty_view()
    path = Path(tempfile.mkdtemp(dir=empty.parent)) / "view.db"
    shutil.copyfile(empty, path)
    return EmptyView(f"sqlite:///{path}")


def give_back(store: Store) -> None:
    """Empty a view that is used no more."""
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            if name != "alembic_version":
                connection.execute(f'DELETE FROM "{name}"')  # noqa: S608 - our own tables
        connection.execute("COMMIT")
    with _lock:
        _free.append(store)


@lru_cache(1)
def _empty_view() -> Path:
    folder = tempfile.mkdtemp(prefix="jobtape-testing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "empty.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        store.migrate()
    return path
