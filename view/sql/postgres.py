"""Sessions on a PostgreSQL, also behind a pooler such as PgBouncer.

A pooler in transaction mode gives each transaction another session of the server. What a transaction leaves in its
session would affect other clients: settings, and prepared statements whose names they use too. So behind a pooler we
prepare no statements, set what we need in each transaction only, and read in transactions. A pooler is recognized by
this: the process id that the server reports when we connect is not that of the process that runs our statements.

Settings of a role or a database (``ALTER ROLE … SET``) must not change what we read and write. So each session sets
everything that it depends on.
"""

import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from jobtape.process import forks
from jobtape.schemas.errors import DatabaseUnfit
from jobtape.view.sql.roles import WRITE_TIMEOUT, Role
from jobtape.view.sql.urls import url_for_messages

OLDEST: Final = 120000
"""PostgreSQL 12, as ``server_version`` has it."""
IDLE_TIMEOUT: Final = 30.0
"""Seconds that a transaction may be open without a statement: a frozen writer must not hold its locks forever."""

# With these, a server that has disappeared is noticed within seconds, not hours.
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


def open_engine(url: URL, role: Role, timeout: float, options: dict[str, Any]) -> Engine:
    """See ``view.sql.engine.open_engine``. ``options``: SQLAlchemy's."""
    arguments = {name: value for name, value in _LIBPQ_DEFAULTS.items() if name not in url.query}
    # Overrides PGCLIENTENCODING, the role and the URL, which would make psycopg encode texts differently.
    arguments["client_encoding"] = "utf8"
    engine = create_engine(
        url,
        connect_args=arguments,
        use_native_hstore=False,
        **({"isolation_level": _ISOLATION} | options),
    )
    # It must run before SQLAlchemy's own first statement.
    event.listen(engine, "connect", _on_connect(url, role, timeout), insert=True)

    def begun(connection: Connection) -> None:
        if role != "fold" and (settings := settings_of_transaction(connection)) is not None:
            connection.exec_driver_sql(settings)

    def failed(context: ExceptionContext) -> None:
        if context.connection is not None:
            end_read_only_session(context.connection, context.original_exception)

    event.listen(engine, "begin", begun)
    event.listen(engine, "handle_error", failed)
    event.listen(engine, "connect", _leave_in_children)
    event.listen(engine, "checkout", _taken(engine))
    event.listen(engine, "do_executemany", _copy)
    event.listen(engine, "do_execute", lambda cursor, statement, row, _: _copy(cursor, statement, [row], None))
    return engine


def _taken(engine: Engine) -> Callable[[Any, Any, Any], None]:
    def taken(connection: Any, record: Any, _proxy: Any) -> None:
        """Find sessions that have ended since, so that a new one begins instead.

        A server that ends its session sends that at once. So the server is asked only if something has arrived since:
        it would take as long as most reads. Behind a pooler the server's message would not arrive.
        """
        if connection.closed or record.info.get(_POOLED) or _has_received(connection):
            try:
                engine.dialect.do_ping(connection)
            except psycopg.Error:
                raise InvalidatePoolError("the session has ended") from None

    return taken


def _has_received(connection: "psycopg.Connection[Any]") -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _leave_in_children(connection: Any, _record: Any) -> None:
    """Close the session in forked children, so that it and its locks end when this process ends it."""
    forks.on_fork(connection, lambda shared: None if shared.closed else forks.close_in_child(shared.fileno()))


def _copy(cursor: "psycopg.Cursor[Any]", statement: str, rows: Sequence[Sequence[Any]], _context: Any) -> bool | None:
    """Send the rows of a statement ``COPY … FROM STDIN``, as SQLAlchemy sends the parameters of other statements."""
    if not statement.startswith("COPY "):
        return None
    with cursor.copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row(row)
    return True


def begin_reading(connection: Connection) -> None:
    """Read in a transaction behind a pooler, which would give each single statement another session."""
    if connection.info.get(_POOLED):
        connection.execution_options(isolation_level=_ISOLATION)


def settings_of_transaction(connection: Connection) -> str | None:
    """Return the SQL with which each transaction begins behind a pooler, None for a session of our own."""
    settings: str | None = connection.info.get(_POOLED)
    return settings


def end_read_only_session(connection: Connection, error: BaseException | None) -> None:
    """End a session that a pooler keeps and that began while the database accepted no writes."""
    if not connection.info.get(_POOLED):
        return
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        driver: psycopg.Connection[Any] = connection.connection.dbapi_connection  # type: ignore[assignment]
        with suppress(psycopg.Error):  # its end is an error too
            driver.rollback()
            driver.autocommit = True
            driver.execute(_END_READ_ONLY)


def _on_connect(url: URL, role: Role, timeout: float) -> Callable[[Any, Any], None]:
    def connected(connection: "psycopg.Connection[Any]", record: Any) -> None:
        before = connection.autocommit
        try:
            connection.autocommit = True
            _check_server(connection, url)
            pooled = _is_pooled(connection)
            if pooled:
                record.info[_POOLED] = _settings(role, timeout, "SET LOCAL")
                connection.prepare_threshold = None
                _check_pooler(connection, url)
            else:
                connection.execute(_settings(role, timeout, "SET").encode())
            connection.autocommit = before
        except BaseException:
            connection.close()
            raise

    return connected


def _settings(role: Role, timeout: float, verb: str) -> str:
    statement = {"read": timeout, "write": WRITE_TIMEOUT, "fold": WRITE_TIMEOUT, "migrate": 0.0}[role]
    values = {
        "timezone": "'UTC'",
        "datestyle": "'ISO, MDY'",
        "extra_float_digits": "1",
        # Each query has an index. A plan made while a table was small, or from old statistics, reads all of it.
        "enable_seqscan": "off",
        "jit": "off",  # it compiles for longer than the queries take
        "statement_timeout": f"{statement * 1000:.0f}",
        "lock_timeout": f"{timeout * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT * 1000:.0f}",
    }
    if role == "fold":
        # A crash of the server loses at most the newest commits, each with its checkpoint, and the tape has the events.
        # A later commit of another role keeps all earlier ones.
        values["synchronous_commit"] = "off"
    return "; ".join(f"{verb} {name} = {value}" for name, value in values.items())


def _check_server(connection: "psycopg.Connection[Any]", url: URL) -> None:
    name = url_for_messages(url)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseUnfit(
            f"the database {name} is in {encoding} and cannot store every text of a job: create one with CREATE "
            "DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in DATABASE_URL"
        )
    if connection.info.server_version < OLDEST:
        version = connection.info.parameter_status("server_version")
        raise DatabaseUnfit(f"the server of {name} is PostgreSQL {version}, and at least 12 is needed")


def _is_pooled(connection: "psycopg.Connection[Any]") -> bool:
    """Return whether statements may run in a different session of the server than the one we connected to."""
    row = connection.execute(b"SELECT pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _check_pooler(connection: "psycopg.Connection[Any]", url: URL) -> None:
    name = url_for_messages(url)
    if "options" in url.query:
        raise DatabaseUnfit(
            f"the pooler in front of {name} does not apply `options` of DATABASE_URL: leave it out, and set "
            "its values with ALTER ROLE … SET (see docs/reference/databases.md)"
        )
    try:
        connection.execute(b"BEGIN")
        connection.execute(b"COMMIT")
    except psycopg.Error as error:
        if "statement pooling" not in str(error):
            raise
        raise DatabaseUnfit(
            f"the pooler in front of {name} is in statement mode, which has no transactions: set its pool_mode to "
            "transaction or session, or connect to the database directly"
        ) from None
