"""An installation for a measurement: its parts are processes, its namespace and folder are removed afterwards."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
import httpx

from benchmarks.rig.servers.brokers import Broker, broker
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from tests.checker import Checker
from tests.databases import start_session_postgres
from tools.brokers.amqp import probe
from tools.processes.ports import free_port

START_TIMEOUT = 180.0
TICKS = os.sysconf("SC_CLK_TCK")
JOBS = "benchmarks.rig.jobs"


@dataclass
class Part:
    """A process of the installation."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def cpu(self) -> float:
        """Return the seconds of user and system time so far, with those of its children (Linux only)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(value) for value in fields[11:15]) / TICKS

    def output(self) -> str:
        """Return its output so far."""
        return self.log.read_text()

    def kill(self) -> None:
        """Send SIGKILL, and wait until it has ended."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after 20 s."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class Installation:
    """The parts, and how to reach them. ``module``: what Python runs as a part."""

    url: str
    topology: Topology
    environment: dict[str, str]
    folder: Path
    parts: list[Part] = field(default_factory=list)
    module: str = "jobtape"
    _started: int = 0

    def start(self, *command: str, **environment: str) -> Part:
        """Start ``jobtape <command>``; its output goes to a file in the folder."""
        path = self.folder / f"{command[0]}-{self._started}.log"
        self._started += 1
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module, *command],
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.parts.append(Part(command[0], process, path))
        return self.parts[-1]

    def replace(self, part: Part, **environment: str) -> None:
        """Kill a part, and start another one of its name."""
        part.kill()
        self.parts.remove(part)
        self.start(part.name, **environment)

    def stop(self) -> None:
        """Stop all parts."""
        for part in self.parts:
            part.stop()

    def client(self) -> httpx.Client:
        """Return a client of the API, with a timeout for large batches."""
        return httpx.Client(base_url=self.url, timeout=300)

    def store(self) -> Store:
        """Open the view. The caller closes it."""
        return Store(self.environment["DATABASE_URL"])

    def checker(self) -> Checker:
        """Return a checker that compares the view with the tape."""
        return Checker(self.environment["RABBITMQ_URL"], self.topology)

    def wait_ready(self) -> None:
        """Wait until the API is ready. Raises TimeoutError with its last answer."""
        last = "no answer"
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{self.url}/health/ready", timeout=5)
                if answer.status_code == 200:
                    return
                last = answer.text
            except httpx.HTTPError as error:
                last = str(error) or last
            time.sleep(0.1)
        raise TimeoutError(f"not ready after {START_TIMEOUT:g} s: {last}; logs in {self.folder}")


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--broker`` and ``--database``; ``doc`` is the docstring of the measurement."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--broker",
        choices=["url", "node", "container"],
        default="url",
        help="the one at RABBITMQ_URL, or a new one: the installed RabbitMQ, or RabbitMQ 4.0 under Docker",
    )
    parser.add_argument(
        "--database", default="sqlite", help="sqlite, postgresql (a new server without fsync), or a URL"
    )
    return parser


@contextmanager
def installation(
    wanted: argparse.Namespace, *, jobs: str = JOBS, queues: Sequence[str] = ("default", "side")
) -> Iterator[tuple[Broker, Installation]]:
    """Yield the broker of ``wanted`` (from ``options``), and an installation whose parts are not started yet.

    ``jobs`` is a module with job types, ``queues`` are those of the job types. Prints versions and the load of the
    machine. Afterwards all parts are stopped, and the namespace and the folder are removed.
    """
    topology = Topology(f"bench-{uuid4().hex[:8]}").with_queues(queues)
    with (
        broker(wanted.broker) as chosen,
        _database(wanted.database) as (database_url, database),
        tempfile.TemporaryDirectory(prefix="jobtape-bench-") as name,
    ):
        print(f"RabbitMQ {probe(chosen.url).version}, {database}, {_load()}", flush=True)
        folder, port = Path(name), free_port()
        environment = {
            **os.environ,
            "RABBITMQ_URL": chosen.url,
            "DATABASE_URL": database_url or f"sqlite:///{folder / 'view.db'}",
            "JOBTAPE_NAMESPACE": topology.namespace,
            "JOBTAPE_JOBS": jobs,
            "JOBTAPE_PORT": str(port),
        }
        made = Installation(f"http://127.0.0.1:{port}", topology, environment, folder)
        try:
            yield chosen, made
            print(_load(), flush=True)
        finally:
            made.stop()
            anyio.run(remove_namespace, chosen.url, topology)


@contextmanager
def _database(wanted: str) -> Iterator[tuple[str | None, str]]:
    """Yield the URL of the database (None for a file of the installation) and its name."""
    if wanted == "postgresql":
        server = start_session_postgres()
        try:
            yield server.url, server.description
        finally:
            server.stop()
    elif wanted == "sqlite":
        yield None, "SQLite"
    else:
        yield wanted, wanted.partition(":")[0]


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def until(condition: Callable[[], object], what: str, seconds: float = 600.0, *, pause: float = 0.05) -> None:
    """Wait until ``condition`` returns a true value, which is asked again after each ``pause`` (seconds).

    Raises TimeoutError with ``what`` after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value below which ``fraction`` of ``values`` lie."""
    return sorted(values)[int(len(values) * fraction)] if values else float("nan")
