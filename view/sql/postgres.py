"""Sessions on a PostgreSQL, also behind a pooler such as PgBouncer.

A pooler in transaction mode gives each transaction another session of the server. What one transaction leaves in its
session would reach those of others: settings, and statements prepared under names that another client uses too. So a
session behind a pooler prepares nothing, sets what it needs for each transaction alone, and reads in transactions. A
pooler shows by this: the process that the server names as ours when we connect is not the one that runs our statements.

What a role or a database sets for all sessions (``ALTER ROLE … SET``) must not change what we read and write: each
session says itself what it depends on.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event

from jobtape import forks
from jobtape.schemas.errors import DatabaseUnfit
from jobtape.view.sql.roles import WRITE_LIMIT, Role
from jobtape.view.sql.urls import url_for_messages

OLDEST: Final = 120000
"""PostgreSQL 12, as ``server_version`` counts."""
IDLE_LIMIT: Final = 30.0
"""Seconds that a transaction may be open without a statement: a writer frozen in the middle must not hold its locks for
ever."""

# A server that vanished without a word is noticed in seconds, not after the kernel's hours.
_LIBPQ_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "jobtape",
}
_END_READ_ONLY: Final = b"""
    SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())
    WHERE pg_catalog.current_setting('default_transaction_read_only') = 'on' AND NOT pg_catalog.pg_is_in_recovery()
"""
_POOLED: Final = "pooled"
_ISOLATION: Final = "READ COMMITTED"


def open_engine(url: URL, role: Role, patience: float, options: dict[str, Any]) -> Engine:
    """As ``view.sql.engine.open_engine``; ``options`` are SQLAlchemy's."""
    arguments = {name: value for name, value in _LIBPQ_DEFAULTS.items() if name not in url.query}
    # Whatever PGCLIENTENCODING, the role or the URL say: psycopg would encode text by it.
    arguments["client_encoding"] = "utf8"
    engine = create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        use_native_hstore=False,
        **({"isolation_level": _ISOLATION} | options),
    )
    # Before SQLAlchemy's own first statement.
    event.listen(engine, "connect", _on_connect(url, role, patience), insert=True)

    def begun(connection: Connection) -> None:
        if connection.info.get(_POOLED):
            connection.exec_driver_sql(_settings(role, patience, "SET LOCAL"))

    event.listen(engine, "begin", begun)
    event.listen(engine, "handle_error", _end_read_only_session)
    event.listen(engine, "connect", _leave_in_children)
    return engine


def _leave_in_children(connection: Any, _record: Any) -> None:
    """Let no forked child keep a session open, and its locks, that this process has ended."""
    forks.on_fork(connection, lambda shared: None if shared.closed else forks.close_in_child(shared.fileno()))


def begin_reading(connection: Connection) -> None:
    """Let what is read here stay within one transaction where a pooler would give each statement another session."""
    if connection.info.get(_POOLED):
        connection.execution_options(isolation_level=_ISOLATION)


def _end_read_only_session(context: ExceptionContext) -> None:
    """A pooler keeps a session of the server that began while the database took no writes: let the server end it."""
    connection = context.connection
    if connection is None or not connection.info.get(_POOLED):
        return
    if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
        driver: psycopg.Connection[Any] = connection.connection.dbapi_connection  # type: ignore[assignment]
        with suppress(psycopg.Error):  # that it has ended is an error, too
            driver.rollback()
            driver.autocommit = True
            driver.execute(_END_READ_ONLY)


def _on_connect(url: URL, role: Role, patience: float) -> Callable[[Any, Any], None]:
    def connected(connection: "psycopg.Connection[Any]", record: Any) -> None:
        before = connection.autocommit
        try:
            connection.autocommit = True
            _check_server(connection, url)
            record.info[_POOLED] = pooled = _is_pooled(connection)
            if pooled:
                connection.prepare_threshold = None
                _check_pooler(connection, url)
            else:
                connection.execute(_settings(role, patience, "SET").encode())
            connection.autocommit = before
        except BaseException:
            connection.close()
            raise

    return connected


def _settings(role: Role, patience: float, verb: str) -> str:
    statement = {"read": patience, "write": WRITE_LIMIT, "migrate": 0.0}[role]
    values = {
        "timezone": "'UTC'",
        "datestyle": "'ISO, MDY'",
        "extra_float_digits": "1",
        "statement_timeout": f"{statement * 1000:.0f}",
        "lock_timeout": f"{patience * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_LIMIT * 1000:.0f}",
    }
    return "; ".join(f"{verb} {name} = {value}" for name, value in values.items())


def _check_server(connection: "psycopg.Connection[Any]", url: URL) -> None:
    name = url_for_messages(url)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseUnfit(
            f"the database {name} is in {encoding} and cannot hold every text of a job: create one with CREATE "
            "DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in DATABASE_URL"
        )
    if connection.info.server_version < OLDEST:
        version = connection.info.parameter_status("server_version")
        raise DatabaseUnfit(f"the server of {name} is PostgreSQL {version}, and 12 is the oldest that will do")


def _is_pooled(connection: "psycopg.Connection[Any]") -> bool:
    """Whether statements may run in other sessions than the one that we have connected to."""
    row = connection.execute(b"SELECT pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _check_pooler(connection: "psycopg.Connection[Any]", url: URL) -> None:
    name = url_for_messages(url)
    if "options" in url.query:
        raise DatabaseUnfit(
            f"there is a pooler in front of {name}, which does not keep to `options` of DATABASE_URL: leave it out, "
            "and set what it says with ALTER ROLE … SET (see docs/reference/databases.md)"
        )
    try:
        connection.execute(b"BEGIN")
        connection.execute(b"COMMIT")
    except psycopg.Error as error:
        if "statement pooling" not in str(error):
            raise
        raise DatabaseUnfit(
            f"the pooler in front of {name} is in statement mode, in which there are no transactions: set its "
            "pool_mode to transaction or session, or connect to the database itself"
        ) from None
