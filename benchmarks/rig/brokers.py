"""Brokers for runs that break them: a private node of this machine's RabbitMQ, or a container on a port that stays."""

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
START_LIMIT = 90.0


class Broker(Protocol):
    """What a run does to its broker: ``kill`` is a power cut, ``start`` returns once it answers again."""

    @property
    def url(self) -> str:
        """The same before and after."""

    def kill(self) -> None:
        """SIGKILL."""

    def start(self) -> None:
        """Go on from the data that is there."""


class Container:
    """RabbitMQ 4.0 under Docker; ``kill`` and ``start`` leave its port and its data as they are."""

    def __init__(self) -> None:
        self.name = f"jobtape-bench-{uuid4().hex[:8]}"
        port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        ensure_image(IMAGE)
        options = ["--hostname", self.name, "--publish", f"127.0.0.1:{port}:5672"]
        options += ["--volume", f"{self.name}:/var/lib/rabbitmq"]
        options += ["--env", f"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS={ARGUMENTS}"]
        docker("create", "--name", self.name, *options, IMAGE)

    def kill(self) -> None:
        """SIGKILL to everything in it."""
        docker("kill", self.name)

    def start(self) -> None:
        """Raises UnreachableError when it does not answer in time."""
        docker("start", self.name)
        deadline = time.monotonic() + START_LIMIT
        while True:
            try:
                probe(self.url, timeout=5.0)
                return
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def remove(self) -> None:
        """With its data."""
        remove_container(self.name)
        remove_volume(self.name)


class _Given:
    """The broker at RABBITMQ_URL, which is not ours to break."""

    url = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/")

    def kill(self) -> None:
        raise RuntimeError("this broker may not be broken: choose --broker node or container")

    def start(self) -> None:
        """It runs."""


@contextmanager
def broker(kind: Kind) -> Iterator[Broker]:
    """A running broker, removed with its data afterwards; ``url``: the one at RABBITMQ_URL, which stays."""
    if kind == "url":
        yield _Given()
    elif kind == "node":
        with tempfile.TemporaryDirectory(prefix="jobtape-bench-node-", ignore_cleanup_errors=True) as folder:
            node = PrivateNode(Path(folder))
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
