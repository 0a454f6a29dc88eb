"""A broker in a container of this clone's own, on a port of 127.0.0.1; its data outlives it in a named volume."""

import contextlib
import secrets
import time
from pathlib import Path

from tools.brokers.amqp import Server, UnreachableError, probe
from tools.brokers.docker import DockerError, docker, remove_container
from tools.clone import clone_name
from tools.processes.locks import FolderInUseError, FolderLock
from tools.processes.tethered import Tethered

IMAGE = "rabbitmq:4.0-management"
START_LIMIT = 90.0  # seconds
# After a restart at-least-once dead-lettering would otherwise stand still for up to three minutes.
ARGUMENTS = "-rabbit dead_letter_worker_publisher_confirm_timeout 3000"


class BrokerContainer:
    """RabbitMQ in a container on a port of 127.0.0.1 that Docker chose; its data outlives it in a named volume."""

    def __init__(self, folder: Path, name: str = clone_name(), image: str = IMAGE) -> None:
        """`name` is the container's, the volume's and the host's; `folder` gets the log and the lock."""
        self.folder = folder
        self.name = name
        self.image = image
        self.url = ""
        self.identity = ""
        self._run: Tethered | None = None
        self._lock: FolderLock | None = None

    def start(self, timeout: float = START_LIMIT) -> Server:
        """Starts it and waits until AMQP answers, `timeout` seconds at most; raises DockerError.

        A container of this name is a leftover of a killed run, since the lock is ours: it is removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.folder)
        except FolderInUseError as error:
            raise DockerError(str(error)) from None
        try:
            remove_container(self.name)
            self.identity = f"docker-{_volume_id(self.name)}"
            # The host name is part of the node's name, and that one is written into the data.
            command = ["docker", "run", "--rm", "--name", self.name, "--hostname", self.name]
            command += ["--publish", "127.0.0.1::5672", "--volume", f"{self.name}:/var/lib/rabbitmq"]
            command += ["--env", f"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS={ARGUMENTS}", self.image]
            # In the foreground under a tether: when we die, docker gets SIGTERM and passes it on.
            self._run = Tethered(command, log=self.folder / "container.log", grace=15.0)
            return self._wait_for_amqp(self._run, timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends and removes the container; the volume stays. May be called twice."""
        if self._run is not None:
            # Not every image's first process passes a signal on to the server; its own tool reaches it always.
            with contextlib.suppress(DockerError):
                docker("exec", self.name, "rabbitmqctl", "--quiet", "stop", timeout=20.0)
            self._run.stop()
            self._run = None
            remove_container(self.name)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _wait_for_amqp(self, run: Tethered, timeout: float) -> Server:
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(DockerError, UnreachableError):
                port = docker("port", self.name, "5672/tcp").splitlines()[0].rpartition(":")[2]
                self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
                return probe(self.url, timeout=5.0)
            if not run.running:
                raise DockerError(f"the container ended during its start: see {self.folder / 'container.log'}")
            if time.monotonic() > deadline:
                raise DockerError(f"the container's broker gave no answer within {timeout:g} s")
            time.sleep(0.2)


def _volume_id(name: str) -> str:
    """Eight hex digits that a volume got when it was made: one that was deleted and made again has others.

    (Docker's own `CreatedAt` follows the folder's time stamp and changes with its use.)
    """
    docker("volume", "create", "--label", f"jobtape.id={secrets.token_hex(4)}", name)  # keeps one that exists
    return docker("volume", "inspect", "--format", '{{index .Labels "jobtape.id"}}', name)
