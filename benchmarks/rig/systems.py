"""The systems that are compared, each as a running set of processes with a driver that submits jobs to it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from benchmarks.rig.installation import Installation, Part
from benchmarks.rig.processes import Usage, usages
from benchmarks.rig.stage import Stage
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tools.clone import ROOT
from tools.processes.ports import free_port

QUEUES: Final = ("default", "side")
PARTS: Final = ("projector", "api", "worker")


class Driver:
    """A process that submits jobs; see ``benchmarks.peers.driver``."""

    def __init__(self, python: Path | str, module: str, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [str(python), "-m", "benchmarks.peers.driver", f"benchmarks.peers.{module}"],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command. ``receive`` returns its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Return the answer to the last command. Raises RuntimeError with the end of its log when it has died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the driver has ended: {self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command, and return its answer."""
        self.send(command, **arguments)
        return self.receive()

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@dataclass
class Running:
    """A system that has returned a first result."""

    driver: Driver
    second: Driver
    """Another driver, for load beside what ``driver`` measures."""
    processes: dict[str, int]
    """The process ids of all that takes part, by name."""
    started: float
    """Seconds from the start of the first process to the first result."""
    installation: Installation | None = None
    """Of Jobtape only."""

    def usages(self) -> dict[str, Usage]:
        """Return what each process has used so far."""
        return usages(self.processes)


@dataclass(frozen=True)
class System:
    """A system in one mode. ``module``: that of its client. ``worker``: arguments of its worker's ``python -m``."""

    name: str
    module: str
    mode: str = "durable"
    database: str = ""
    worker: Sequence[str] = ()
    delays: bool = True
    queues: str = ""
    """The mode whose kind of queues it has, if that is not its own."""

    @contextmanager
    def run(self, stage: Stage) -> Iterator[Running]:
        """Start it, and wait for the first result. Afterwards all its processes are stopped."""
        with tempfile.TemporaryDirectory(prefix=f"{self.module}-", dir=stage.folder) as name, ExitStack() as stack:
            starter = self._jobtape if self.database else self._peer
            try:
                running = starter(stage, Path(name), stack)
            except RuntimeError as error:
                logs = [f"{log.name}: {log.read_text()[-1000:]}" for log in Path(name).glob("worker*.log")]
                raise RuntimeError("\n".join([f"{self.name} has not started: {error}", *logs])) from None
            yield running

    def _peer(self, stage: Stage, folder: Path, stack: ExitStack) -> Running:
        stage.redis.clear()
        environment = {
            **os.environ,
            "BENCH_MODE": self.mode,
            "BENCH_BROKER": stage.broker_url(self.queues or self.mode),
            "BENCH_REDIS": stage.redis.url,
            "BENCH_LATENESS": str(folder / "lateness"),
            "PATH": f"{stage.python.parent}:{os.environ.get('PATH', '')}",
        }
        servers = {"RabbitMQ": _broker(stage), "Redis": stage.redis.pid}
        begun = time.monotonic()
        with (folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [str(stage.python), "-m", *self.worker], env=environment, cwd=ROOT, stdout=log, stderr=log
            )
        stack.callback(Part("worker", process, folder / "worker.log").stop)
        return _first(stack, stage.python, self.module, environment, folder, begun, {"worker": process.pid, **servers})

    def _jobtape(self, stage: Stage, folder: Path, stack: ExitStack) -> Running:
        made = jobtape(stage, folder, stack, self.database)
        database = made.servers
        begun = time.monotonic()
        parts = {name: made.installation.start(name).process.pid for name in PARTS}
        environment = {**made.installation.environment, "BENCH_API": made.installation.url}
        made.installation.wait_ready()
        running = _first(
            stack,
            sys.executable,
            self.module,
            environment,
            folder,
            begun,
            {**parts, "RabbitMQ": _broker(stage), **database},
        )
        running.installation = made.installation
        return running


@dataclass(frozen=True)
class MadeInstallation:
    """An installation whose parts are not started. ``servers``: the process ids of its database's server, by name."""

    installation: Installation
    servers: dict[str, int]


def jobtape(stage: Stage, folder: Path, stack: ExitStack, database: str) -> MadeInstallation:
    """Make an installation on the stage's broker. ``stack`` gets what removes it."""
    found = stage.database(database, folder)
    port = free_port()
    topology = Topology(f"bench-{folder.name.rpartition('-')[2]}").with_queues(QUEUES)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JOBTAPE_")},
        "RABBITMQ_URL": stage.node.url,
        "DATABASE_URL": found.url,
        "JOBTAPE_NAMESPACE": topology.namespace,
        "JOBTAPE_JOBS": "benchmarks.rig.jobs",
        "JOBTAPE_PORT": str(port),
        "BENCH_LATENESS": str(folder / "lateness"),
    }
    made = Installation(f"http://127.0.0.1:{port}", topology, environment, folder)
    stack.callback(lambda: anyio.run(remove_namespace, stage.node.url, topology))
    stack.callback(made.stop)
    return MadeInstallation(made, found.processes)


def _first(
    stack: ExitStack,
    python: Path | str,
    module: str,
    environment: Mapping[str, str],
    folder: Path,
    begun: float,
    processes: dict[str, int],
) -> Running:
    log = folder / "driver.log"
    driver = Driver(python, module, environment, log)
    stack.callback(driver.stop)
    driver.do("first")
    started = time.monotonic() - begun
    second = Driver(python, module, environment, log)
    stack.callback(second.stop)
    second.do("first")
    return Running(driver, second, {"client": driver.process.pid, **processes}, started)


def _broker(stage: Stage) -> int:
    pid = stage.node.pid
    assert pid is not None
    return pid


PEERS: Final = {
    "Dramatiq": ("dramatiq_peer", ["dramatiq", "benchmarks.peers.dramatiq_peer"], True),
    "Celery": (
        "celery_peer",
        ["celery", "-A", "benchmarks.peers.celery_peer", "worker", "--loglevel", "WARNING"],
        True,
    ),
    "taskiq": (
        "taskiq_peer",
        ["taskiq", "worker", "--log-level", "WARNING", "benchmarks.peers.taskiq_peer:broker"],
        True,
    ),
    "FastStream": ("faststream_peer", ["faststream", "run", "benchmarks.peers.faststream_peer:app"], False),
}


def peers(mode: str) -> list[System]:
    """Return the peers in a mode."""
    return [System(name, module, mode, "", worker, delays) for name, (module, worker, delays) in PEERS.items()]


def classic() -> System:
    """Return Dramatiq in durable mode with the durable classic queues that it declares by itself."""
    module, worker, delays = PEERS["Dramatiq"]
    return System("Dramatiq, classic queues", module, "durable", "", worker, delays, "defaults")


def ours(databases: Sequence[str] = ("sqlite", "postgresql")) -> list[System]:
    """Return Jobtape with these databases."""
    titles = {"sqlite": "Jobtape, SQLite", "postgresql": "Jobtape, PostgreSQL"}
    return [System(titles[each], "jobtape_client", "durable", each) for each in databases]
