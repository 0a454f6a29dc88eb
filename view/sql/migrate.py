"""Bringing the tables to the newest version, however many processes start at once."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, text

from jobtape.view.sql import engine, sqlite
from jobtape.view.sql.roles import MIGRATE_PATIENCE

_LOCK: Final = 0x6A6F62746170  # "jobtap": the advisory lock's key, the same for all versions
_MIGRATIONS: Final = Path(__file__).parent.parent / "migrations"


def to_newest(url: URL) -> None:
    """Make or update the tables. One process does it, the others wait and find it done.

    Errors are the drivers', SQLAlchemy's and, where a folder cannot be made, OSError.
    """
    migrators = engine.open_engine(url, "migrate")
    try:
        if url.drivername == "sqlite":
            sqlite.path_of(url).parent.mkdir(parents=True, exist_ok=True)
            _use_write_ahead_log(url)
        with migrators.begin() as connection:
            if url.drivername != "sqlite":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            _upgrade(connection)
    finally:
        migrators.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _use_write_ahead_log(url: URL) -> None:
    """Readers then see the last commit while a writer works. The file remembers it.

    SQLite answers "locked" at once, without its busy timeout, when another process is changing the mode.
    """
    deadline = time.monotonic() + MIGRATE_PATIENCE
    with closing(sqlite.opener(url, "migrate", MIGRATE_PATIENCE)()) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").close()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
