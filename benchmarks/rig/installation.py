"""A whole installation as processes of its own, under a random namespace and a folder that is removed afterwards."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
import httpx

from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from tests.checker import Checker

START_LIMIT = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
EXAMPLE_QUEUES = ("default", "files", "images", "mail")


@dataclass
class Part:
    """A process of the installation; ``cpu`` is in seconds, of it and its children."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def cpu(self) -> float:
        """User and system time so far, from /proc (Linux only)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(value) for value in fields[11:15]) / TICKS

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def kill(self) -> None:
        """SIGKILL, as an accident would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class Installation:
    """Its parts, and how to reach them."""

    url: str
    topology: Topology
    environment: dict[str, str]
    folder: Path
    parts: list[Part] = field(default_factory=list)
    _started: int = 0

    def start(self, *command: str, **environment: str) -> Part:
        """Start ``jobtape <command>``; its output goes to a file in the folder."""
        path = self.folder / f"{command[0]}-{self._started}.log"
        self._started += 1
        with path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "jobtape", *command],
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.parts.append(Part(command[0], process, path))
        return self.parts[-1]

    def client(self) -> httpx.Client:
        """A client of the API, which may take long for a large batch."""
        return httpx.Client(base_url=self.url, timeout=300)

    def store(self) -> Store:
        """The view, opened; for the caller to close."""
        return Store(self.environment["DATABASE_URL"])

    def checker(self) -> Checker:
        """Compares the view with the tape."""
        return Checker(self.environment["RABBITMQ_URL"], self.topology)

    def wait_ready(self) -> None:
        """Until readiness says so. Raises TimeoutError with what it says."""
        said = "no answer"
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{self.url}/health/ready", timeout=5)
                if answer.status_code == 200:
                    return
                said = answer.text
            except httpx.HTTPError as error:
                said = str(error) or said
            time.sleep(0.1)
        raise TimeoutError(f"not ready after {START_LIMIT:g} s: {said}; logs in {self.folder}")


@contextmanager
def installation(
    *,
    jobs: str = "examples.jobs",
    queues: Sequence[str] = EXAMPLE_QUEUES,
    broker_url: str | None = None,
    database_url: str | None = None,
) -> Iterator[Installation]:
    """Nothing is started yet. Afterwards everything is stopped and removed, the broker's namespace too.

    The broker is the one at ``broker_url``, otherwise at RABBITMQ_URL. ``queues``: those of the jobs, to be removed.
    """
    broker = broker_url or os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/")
    topology = Topology(f"bench-{uuid4().hex[:8]}").with_queues(queues)
    with tempfile.TemporaryDirectory(prefix="jobtape-bench-") as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        folder = Path(name)
        environment = {
            **os.environ,
            "RABBITMQ_URL": broker,
            "DATABASE_URL": database_url or f"sqlite:///{folder / 'view.db'}",
            "JOBTAPE_NAMESPACE": topology.namespace,
            "JOBTAPE_JOBS": jobs,
            "JOBTAPE_PORT": str(port),
        }
        made = Installation(f"http://127.0.0.1:{port}", topology, environment, folder)
        try:
            yield made
        finally:
            for part in made.parts:
                part.stop()
            anyio.run(remove_namespace, broker, topology)
