"""The broker, Redis and PostgreSQL that all systems of a run share, each a private server of this run."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from benchmarks.peers.environment import peers_python
from benchmarks.rig.processes import parent_of
from benchmarks.rig.servers.brokers import Server, server
from benchmarks.rig.servers.redis import RedisServer
from tests.databases import start_session_postgres

MODES = ("durable", "defaults")


@dataclass
class Database:
    """A new database for one installation. ``processes``: the process ids of its server, by name."""

    url: str
    processes: dict[str, int]
    description: str


@dataclass
class Stage:
    """The servers of a run. Those that are not needed are not started."""

    node: Server
    folder: Path
    _stack: ExitStack
    _redis: RedisServer | None = None
    _postgres: tuple[str, int, str] | None = None
    _python: Path | None = None
    _modes: set[str] = field(default_factory=set)

    @property
    def redis(self) -> RedisServer:
        """The Redis server."""
        if self._redis is None:
            self._redis = RedisServer(self.folder / "redis")
            self._stack.callback(self._redis.stop)
        return self._redis

    @property
    def python(self) -> Path:
        """The interpreter of the peers' environment."""
        if self._python is None:
            self._python = peers_python()
        return self._python

    def broker_url(self, mode: str) -> str:
        """Return the URL of the virtual host of a mode. In that of ``durable`` queues are quorum queues by default."""
        if mode not in self._modes:
            kind = ["--default-queue-type", "quorum"] if mode == "durable" else []
            self.node.ctl("add_vhost", mode, *kind)
            user = urlsplit(self.node.url).username
            assert user is not None
            self.node.ctl("set_permissions", "-p", mode, user, ".*", ".*", ".*")
            self._modes.add(mode)
        return self.node.url.removesuffix("/") + f"/{mode}"

    def database(self, kind: str, folder: Path) -> Database:
        """Return an empty database: ``sqlite`` (a file in ``folder``) or ``postgresql``."""
        if kind == "sqlite":
            return Database(f"sqlite:///{folder / 'view.db'}", {}, "SQLite")
        if self._postgres is None:
            server = start_session_postgres(durable=True)
            self._stack.callback(server.stop)
            with psycopg.connect(server.url) as connection:
                self._postgres = server.url, parent_of(connection.info.backend_pid), server.description
        url, pid, description = self._postgres
        name = f"bench_{uuid4().hex[:12]}"
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        return Database(f"{url.rpartition('/')[0]}/{name}", {"PostgreSQL": pid}, description.split(",")[0])


@contextmanager
def stage(broker: Literal["node", "container"] = "node") -> Iterator[Stage]:
    """Yield a stage with a running broker: the installed RabbitMQ, or 4.0 in a container.

    Afterwards all servers are stopped and their data is removed.
    """
    with tempfile.TemporaryDirectory(prefix="jobtape-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # servers run as users of their own
        yield Stage(stack.enter_context(server(broker, folder / "rabbitmq")), folder, stack)


Log = Callable[[str], None]


def log(line: str) -> None:
    """Say how far the run is."""
    print(line, file=sys.stderr, flush=True)
