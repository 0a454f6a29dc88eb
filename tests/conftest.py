"""Fixtures for all tests: one real broker and one real PostgreSQL for each session, started when first needed.

Every test uses a namespace of its own on the broker, and a file or database of its own. With pytest-xdist each
of its processes is a session, with a broker and a PostgreSQL of its own.
"""

import asyncio
import gc
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest

from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from tests.brokers import SessionBroker, ensure_server, start_session_broker
from tests.databases import SessionPostgres, start_session_postgres
from tests.namespaces import some_topology
from tools.brokers.node import PrivateNode

_used: list[str] = []

MakeTopology = Callable[..., Topology]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def broker() -> Iterator[SessionBroker]:
    """The session's RabbitMQ. Tests do not break it."""
    started = start_session_broker()
    _used.append(started.description)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def broker_url(broker: SessionBroker) -> str:
    """The URL of the session's RabbitMQ."""
    return broker.url


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """A second RabbitMQ, which tests may break and must repair."""
    ensure_server()
    folder = tmp_path_factory.mktemp("node")
    folder.chmod(0o755)
    started = PrivateNode(folder)
    started.start()
    yield started
    started.kill()  # its data are not needed again


@pytest.fixture
async def node_without_alarm(node: PrivateNode) -> AsyncIterator[PrivateNode]:
    """The ``node``, whose memory alarm ends with the test."""
    yield node
    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")


@pytest.fixture(scope="session")
def postgres() -> Iterator[SessionPostgres]:
    """The session's PostgreSQL."""
    started = start_session_postgres()
    _used.append(started.description)
    yield started
    started.stop()


@pytest.fixture
def make_topology(broker_url: str) -> Iterator[MakeTopology]:
    """A function like ``some_topology``, whose topologies are removed from the broker after the test."""
    made: list[Topology] = []

    def make(*queues: str, **more: Any) -> Topology:
        made.append(some_topology(*queues, **more))
        return made[-1]

    yield make
    for topology in made:
        anyio.run(remove_namespace, broker_url, topology)


@pytest.fixture
def topology(make_topology: MakeTopology) -> Topology:
    """A namespace for this test, with the queue ``default``."""
    return make_topology()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file for this test."""
    return f"sqlite:///{tmp_path / 'view.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    """A database for this test, which runs once with each kind."""
    if request.param == "sqlite":
        yield sqlite_url
        return
    server: SessionPostgres = request.getfixturevalue("postgres")
    schema = f"test_{uuid4().hex}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {schema}".encode())
    joint = "&" if "?" in server.url else "?"
    yield f"{server.url}{joint}options=-csearch_path%3D{schema}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An empty view, on each kind of database."""
    opened = Store(database_url)
    opened.migrate()
    yield opened
    opened.close()


def pytest_collection_finish() -> None:
    """Leave all modules and tests out of later garbage collections, of which each would stop a test's event loop for a
    third of a second.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the servers that a process of pytest-xdist used to its parent process."""
    output: dict[str, list[str]] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ran_against"] = _used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the servers that a process of pytest-xdist has sent. A process that crashed has sent nothing."""
    _used.extend(getattr(node, "workeroutput", {}).get("ran_against", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which broker and database were used, and by how many processes."""
    for description, times in sorted(Counter(_used).items()):
        terminalreporter.write_line(f"ran against {description}" + (f" ({times} of them)" if times > 1 else ""))


def pytest_configure() -> None:
    """Remove a developer's settings from the environment, and handle Ctrl-C again."""
    for name in [name for name in os.environ if name.startswith("JOBTAPE_") and not name.startswith("JOBTAPE_TEST_")]:
        if name != "JOBTAPE_SETUP":
            del os.environ[name]
    # A shell ignores Ctrl-C for background processes, and what the tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
