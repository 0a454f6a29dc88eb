"""Brings the tables to the newest version. Several processes may start it at once."""

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, inspect, text

from jobtape.view import tables
from jobtape.view.sql import engine, sqlite
from jobtape.view.sql.roles import MIGRATE_TIMEOUT

_LOCK: Final = 0x6A6F62746170
"""The key of the advisory lock ("jobtap"), the same for all versions."""
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def to_newest(url: URL) -> None:
    """Create or update the tables. One process does it, the others wait.

    Raises the errors of the drivers and of SQLAlchemy, and OSError when a folder cannot be created.
    """
    migrators = engine.open_engine(url, "migrate")
    try:
        if url.drivername == "sqlite":
            sqlite.path_of(url).parent.mkdir(parents=True, exist_ok=True)
            _use_write_ahead_log(url)
        with migrators.begin() as connection:
            if url.drivername != "sqlite":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            if not _is_newest(connection):
                _upgrade(connection)
    finally:
        migrators.dispose()


def drop_tables(connection: Connection) -> None:
    """Remove all tables of Jobtape in PostgreSQL, and no others."""
    if connection.dialect.name == "sqlite":
        return
    ours = {*tables.metadata.tables, "alembic_version"}
    rebuilt = re.compile(rf"({'|'.join(each.name for each in tables.SERVING.each())})_g\d+")
    found = [each for each in inspect(connection).get_table_names() if each in ours or rebuilt.fullmatch(each)]
    connection.execute(text(f"DROP TABLE {', '.join(found)}"))


def delete_file(url: URL) -> None:
    """Delete the file of an SQLite database that nobody uses, with its log."""
    if url.drivername == "sqlite":
        for suffix in ("", "-wal", "-shm"):
            Path(f"{sqlite.path_of(url)}{suffix}").unlink(missing_ok=True)


def _is_newest(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == tables.SCHEMA_VERSION


def _upgrade(connection: Connection) -> None:
    # Here, because it takes a tenth of a second, and most processes find the newest version.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _use_write_ahead_log(url: URL) -> None:
    """Set the mode of the file in which readers do not wait for a writer.

    When another process is setting it, SQLite fails with "locked" at once, without its busy timeout.
    """
    deadline = time.monotonic() + MIGRATE_TIMEOUT
    with closing(sqlite.connect(sqlite.path_of(url), "migrate", MIGRATE_TIMEOUT)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").close()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
