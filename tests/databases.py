"""One PostgreSQL for a whole test session: a private cluster of the installed binaries, or a container.

The tests may change everything in the database that they get.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from sqlalchemy import make_url
from testcontainers.community.postgres import PostgresContainer

from tests.containers import NoContainersError, check_engine
from tests.packages import ensure_installed, find_installed
from tools.brokers.apt import AptError
from tools.processes.ports import free_port
from tools.processes.tethered import Tethered

IMAGE = "postgres:17"
START_TIMEOUT = 60.0  # seconds
WHAT_TO_DO = "install PostgreSQL, start Docker, or set JOBTAPE_TEST_DATABASE_URL=postgresql://user:password@host/name"


class NoTestPostgresError(Exception):
    """There is no PostgreSQL for the tests. The text has the reasons and what to do."""


@dataclass(frozen=True)
class SessionPostgres:
    """A PostgreSQL for the tests. `url`: `postgresql://…`; its user owns the database and may create others."""

    url: str
    description: str
    stop: Callable[[], None]


@dataclass(frozen=True)
class OwnDatabase:
    """A database of one test. ``server``: the URL of another database on the same server."""

    server: str
    name: str

    @property
    def url(self) -> str:
        """The URL of the database."""
        return make_url(self.server).set(database=self.name, query={}).render_as_string(hide_password=False)

    def administer(self, *statements: str) -> None:
        """Execute statements as the owner, from the other database. ``{name}`` is replaced by the database's name."""
        self._execute(self.server, statements)

    def execute(self, *statements: str) -> None:
        """Same as ``administer``, in the database itself."""
        self._execute(self.url, statements)

    def _execute(self, url: str, statements: Sequence[str]) -> None:
        with psycopg.connect(url, autocommit=True) as admin:
            for statement in statements:
                admin.execute(statement.format(name=self.name).encode())

    def end_sessions(self) -> None:
        """End all sessions of the database, and wait until they have ended."""
        others = b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        deadline = time.monotonic() + START_TIMEOUT
        with psycopg.connect(self.server, autocommit=True) as admin:
            while admin.execute(others, [self.name]).fetchall():
                assert time.monotonic() < deadline, "some sessions do not end"
                time.sleep(0.01)


@contextlib.contextmanager
def own_database(server: str, options: str = "") -> Iterator[OwnDatabase]:
    """Create a database with these options for one test, and remove it at the end."""
    made = OwnDatabase(server, f"test_{secrets.token_hex(8)}")
    made.administer(f"CREATE DATABASE {{name}} TEMPLATE template0 {options}")
    try:
        yield made
    finally:
        made.administer("DROP DATABASE {name} WITH (FORCE)")


def start_session_postgres(*, durable: bool = False) -> SessionPostgres:
    """Start a private cluster, or else a container, or else install Debian's package and start a cluster.

    ``durable``: with PostgreSQL's own settings for writing to disk, which a container always has, and not with the fast
    ones of tests. With JOBTAPE_TEST_DATABASE_URL, that database is used instead. Takes some seconds. Call `stop()` at
    the end. Raises NoTestPostgresError.
    """
    given = os.environ.get("JOBTAPE_TEST_DATABASE_URL")
    if given:
        try:
            return SessionPostgres(given, f"PostgreSQL {_version(given)} at JOBTAPE_TEST_DATABASE_URL", lambda: None)
        except psycopg.Error as error:
            raise NoTestPostgresError(f"cannot connect to JOBTAPE_TEST_DATABASE_URL: {error}") from None
    reasons: list[str] = []
    for way in (partial(_cluster, durable), _container, partial(_installed, durable)):
        try:
            return way()
        except (NoTestPostgresError, NoContainersError, AptError) as error:
            reasons.append(str(error))
    raise NoTestPostgresError(f"no PostgreSQL for the tests ({'; '.join(reasons)}): {WHAT_TO_DO}")


def _binaries() -> Path | None:
    """Return the folder of the newest initdb and postgres. On Debian it is not in PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*versions, *([Path(on_path).resolve().parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


class Cluster:
    """A private cluster in a temporary folder, on a free port of 127.0.0.1, with a random password.

    Raises NoTestPostgresError when it does not start. Call ``stop`` at the end.
    """

    def __init__(self, *, durable: bool) -> None:
        binaries = find_installed(_binaries)
        if binaries is None:
            raise NoTestPostgresError("PostgreSQL is not installed")
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="jobtape-test-postgres-"))
        password, port = secrets.token_hex(12), free_port()
        data = self._initialize(binaries / "initdb", password)
        options = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
        options["max_connections"] = "200"
        if not durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self._command = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in options.items():
            self._command += ["-c", f"{name}={value}"]
        admin = f"postgresql://jobtape:{password}@127.0.0.1:{port}"
        self._admin = f"{admin}/postgres"
        self.url = f"{admin}/jobtape"
        self._server = self._start()
        try:
            self.version = _wait(self._admin, self._server)
            with psycopg.connect(self._admin, autocommit=True) as connection:
                connection.execute("CREATE DATABASE jobtape")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, and remove the folder."""
        self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def crash(self) -> None:
        """Let the server end as after a failure, without what it has not written to disk, and start it again."""
        os.kill(self._server.pid, signal.SIGQUIT)
        deadline = time.monotonic() + START_TIMEOUT
        while self._server.running:
            assert time.monotonic() < deadline, "PostgreSQL does not end"
            time.sleep(0.01)
        self._server.stop()
        self._server = self._start()
        _wait(self._admin, self._server)

    def _initialize(self, initdb: Path, password: str) -> Path:
        (self._folder / "password").write_text(password)
        if self._user:
            for path in (self._folder, self._folder / "password"):
                shutil.chown(path, self._user, self._user)
        data = self._folder / "data"
        command = [str(initdb), "--pgdata", str(data), "--username", "jobtape", "--pwfile"]
        command += [str(self._folder / "password"), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        made = subprocess.run(
            [*command, "--no-sync"],
            cwd=self._folder,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise NoTestPostgresError(f"initdb failed: {' '.join(made.stderr.split())[-200:]}")
        return data

    def _start(self) -> Tethered:
        return Tethered(
            self._command,
            log=self._folder / "postgres.log",
            folder=self._folder,
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast": does not wait until clients disconnect
        )


def _cluster(durable: bool) -> SessionPostgres:
    cluster = Cluster(durable=durable)
    return SessionPostgres(cluster.url, f"PostgreSQL {cluster.version}, a private cluster", cluster.stop)


def _container() -> SessionPostgres:
    check_engine(IMAGE)
    container = PostgresContainer(IMAGE, username="jobtape", password=secrets.token_hex(12), dbname="jobtape")
    container.start()
    url = container.get_connection_url(driver=None)
    return SessionPostgres(url, f"PostgreSQL {_version(url)} in a container ({IMAGE})", container.stop)


def _installed(durable: bool) -> SessionPostgres:
    """Install Debian's package without its cluster and service, then start our own cluster."""
    install_postgres()
    return _cluster(durable)


def install_postgres() -> None:
    """Install Debian's package if PostgreSQL is not installed. Raises AptError."""
    ensure_installed(_binaries, "postgresql")


def _wait(url: str, server: Tethered) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            return _version(url)
        if not server.running or time.monotonic() > deadline:
            raise NoTestPostgresError("the private PostgreSQL cluster did not start")
        time.sleep(0.05)


def _version(url: str) -> str:
    with psycopg.connect(url, connect_timeout=5) as connection:
        number = connection.info.server_version  # 150020 is 15.20
        return f"{number // 10_000}.{number % 10_000}"
