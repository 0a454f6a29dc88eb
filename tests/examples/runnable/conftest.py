"""One installation for all examples, as ``make run`` starts it, and their applications on ports of their own."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import anyio
import pytest
import uvicorn

from jobtape.broker.declare import remove_namespace
from tests.cli.programs import Program, until
from tests.examples.runnable.readme import NAMES, job_modules, started
from tests.namespaces import environment_for, some_topology
from tools.clone import ROOT
from tools.processes.ports import free_port

QUEUES = ("default", "mail", "orders", "shipping", "invoices")


@dataclass
class Installation:
    """The folder in which its processes and the commands run, its environment, and the port of its API."""

    folder: Path
    environment: dict[str, str]
    port: int
    app_port: int
    programs: list[Program] = field(default_factory=list)

    def start(self, *command: str, **variables: str) -> Program:
        """Start a program with Python, in the environment of the installation."""
        program = Program([sys.executable, *command], {**self.environment, **variables}, self.folder)
        self.programs.append(program)
        return program


@pytest.fixture(scope="session")
def installation(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """API, projector and a worker with the jobs of all examples. Only the queue of invoices has no worker."""
    folder = tmp_path_factory.mktemp("examples")
    topology = some_topology(*QUEUES)
    port = free_port()
    app_port = free_port(avoid={port})
    modules = sorted({module for name in NAMES for module in job_modules(name)[-1].split(",")})
    environment = os.environ | {
        **environment_for(broker_url, topology),
        "DATABASE_URL": f"sqlite:///{folder / 'view.db'}",
        "JOBTAPE_JOBS": ",".join(modules),
        "JOBTAPE_PORT": str(port),
        "JOBTAPE_URL": f"http://127.0.0.1:{port}",
        "JOBTAPE_EXAMPLE_SUPPLIERS": f"http://127.0.0.1:{app_port}/suppliers",
        "JOBTAPE_EXAMPLE_SMTP_PORT": str(free_port(avoid={port, app_port})),
        "PYTHONPATH": str(ROOT),
    }
    made = Installation(folder, environment, port, app_port)
    queues = ",".join(queue for queue in QUEUES if queue != "invoices")
    up = made.start("-P", "-m", "jobtape", "up", JOBTAPE_QUEUES=queues)
    up.line_with("worker ", "taking jobs")
    up.line_with("api ", "running on")
    yield made
    for program in reversed(made.programs):
        program.close()
    anyio.run(remove_namespace, broker_url, topology)


@contextmanager
def serving(name: str, installation: Installation) -> Iterator[None]:
    """Serve the application that the README of the example starts with uvicorn, if it does, during the block."""
    commands = started(name, "uvicorn")
    if not commands:
        yield
        return
    (command,) = commands
    target, *options = command.split()
    assert options == ["--port", "8001"]
    module, _, attribute = target.partition(":")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in installation.environment.items():
            patch.setenv(variable, value)
        patch.chdir(installation.folder)
        app = getattr(import_module(module), attribute)
        server = uvicorn.Server(uvicorn.Config(app, port=installation.app_port, log_level="warning"))
        thread = threading.Thread(target=server.run, name=f"example {name}")
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), f"{target} is served")
            assert server.started
            yield
        finally:
            server.should_exit = True
            thread.join()
