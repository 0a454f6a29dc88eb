"""Brokers that a measurement may kill: a private node of the installed RabbitMQ, or a container with a fixed port."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol
from uuid import uuid4

from tools.brokers.amqp import UnreachableError, probe
from tools.brokers.container import ARGUMENTS, IMAGE
from tools.brokers.docker import docker, ensure_image, remove_container, remove_volume
from tools.brokers.node import PrivateNode
from tools.processes.ports import free_port

Kind = Literal["url", "node", "container"]
START_TIMEOUT = 90.0


class Broker(Protocol):
    """A broker that can be killed and started again."""

    @property
    def url(self) -> str:
        """The URL, which stays the same."""

    def kill(self) -> None:
        """Send SIGKILL, as a power cut would."""

    def start(self) -> None:
        """Start with the existing data, and return when it answers."""


class Container:
    """RabbitMQ 4.0 under Docker. ``kill`` and ``start`` keep port and data."""

    def __init__(self) -> None:
        self.name = f"jobtape-bench-{uuid4().hex[:8]}"
        port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        self.version = ""
        """The server's version, like "4.0.5", once it has started."""
        ensure_image(IMAGE)
        options = ["--hostname", self.name, "--publish", f"127.0.0.1:{port}:5672"]
        options += ["--volume", f"{self.name}:/var/lib/rabbitmq"]
        options += ["--env", f"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS={ARGUMENTS}"]
        docker("create", "--name", self.name, *options, IMAGE)

    def kill(self) -> None:
        """Send SIGKILL to all processes of the container."""
        docker("kill", self.name)

    def start(self) -> None:
        """Start the container. Raises UnreachableError when it does not answer in time."""
        docker("start", self.name)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.version = probe(self.url, timeout=5.0).version
                return
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    @property
    def pid(self) -> int:
        """The process id of the container's first process, whose descendants all others are."""
        return int(docker("inspect", "--format", "{{.State.Pid}}", self.name))

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl in the container and return what it printed. Raises DockerError."""
        return docker("exec", self.name, "rabbitmqctl", "--quiet", *arguments)

    def remove(self) -> None:
        """Remove the container with its data."""
        remove_container(self.name)
        remove_volume(self.name)


Server = PrivateNode | Container


@contextmanager
def server(kind: Literal["node", "container"], folder: Path) -> Iterator[Server]:
    """Yield a running broker of its own, and remove it afterwards. ``folder`` gets the node's data."""
    if kind == "node":
        node = PrivateNode(folder)
        try:
            node.start()
            yield node
        finally:
            node.stop()
    else:
        container = Container()
        try:
            container.start()
            yield container
        finally:
            with suppress(UnreachableError):
                container.remove()


class _External:
    """The broker at RABBITMQ_URL, which must not be killed."""

    @property
    def url(self) -> str:
        """The URL, as the environment has it now."""
        return os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/")

    def kill(self) -> None:
        raise RuntimeError("the broker at RABBITMQ_URL must not be killed: choose --broker node or container")

    def start(self) -> None:
        """Do nothing: it runs already."""


@contextmanager
def broker(kind: Kind) -> Iterator[Broker]:
    """Yield a running broker, and remove it with its data afterwards, except the one at RABBITMQ_URL (``url``)."""
    if kind == "url":
        yield _External()
    else:
        with (
            tempfile.TemporaryDirectory(prefix="jobtape-bench-node-", ignore_cleanup_errors=True) as folder,
            server(kind, Path(folder)) as started,
        ):
            yield started
