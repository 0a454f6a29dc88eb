"""PgBouncer in front of the PostgreSQL of the test session. Debian's package is installed when it is missing."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL, make_url

from tests.databases import own_database
from tests.packages import ensure_installed
from tools.brokers.apt import AptError
from tools.processes.ports import free_port
from tools.processes.tethered import Tethered

START_TIMEOUT = 30.0  # seconds
WHAT_TO_DO = "install the package pgbouncer, or run the tests as root on Debian, where they install it"


class NoTestPoolerError(Exception):
    """There is no PgBouncer for the tests. The text has the reason and what to do."""


@contextmanager
def pooled_database(server_url: str, mode: str, sessions: int = 2, **settings: str) -> Iterator[tuple[str, str]]:
    """Create a database behind a PgBouncer with ``sessions`` sessions; yield its pooled and its direct URL."""
    with own_database(server_url) as made:
        direct = make_url(made.url)
        with _pooler(direct, {"pool_mode": mode, "default_pool_size": str(sessions)} | settings) as port:
            through = direct.set(host="127.0.0.1", port=port)
            yield through.render_as_string(hide_password=False), made.url


@contextmanager
def _pooler(server: URL, settings: dict[str, str]) -> Iterator[int]:
    program = _program()
    # PgBouncer refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="jobtape-test-pooler-"))
    port = free_port()
    all_settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
    } | settings
    lines = [f"{key} = {value}" for key, value in all_settings.items()]
    to = f"host={server.host} port={server.port} user={server.username} password={server.password}"
    file = folder / "pgbouncer.ini"
    file.write_text("\n".join(["[databases]", f"* = {to}", "[pgbouncer]", *lines, ""]))
    if user:
        for path in (folder, file):
            shutil.chown(path, user, user)
    log = folder / "pgbouncer.log"
    running = Tethered([program, "--quiet", str(file)], log=log, folder=folder, user=user)
    try:
        _wait(server.set(host="127.0.0.1", port=port), running, log)
        yield port
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _program() -> str:
    try:
        return ensure_installed(_found, "pgbouncer")
    except AptError as error:
        raise NoTestPoolerError(f"no PgBouncer for the tests ({error}): {WHAT_TO_DO}") from None


def _found() -> str | None:
    """Return the path of the program. On Debian it is not in the PATH of ordinary users."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _wait(url: URL, running: Tethered, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            psycopg.connect(
                host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
            ).close()
            return
        except psycopg.OperationalError as error:
            if not running.running or time.monotonic() > deadline:
                raise NoTestPoolerError(f"PgBouncer did not start: {error} {log.read_text()[-500:]}") from None
        time.sleep(0.02)
