"""A broker in a container of this clone, on a port of 127.0.0.1."""

import contextlib
import secrets
import time
from pathlib import Path

from tools.brokers.amqp import Server, UnreachableError, probe
from tools.brokers.docker import DockerError, docker, remove_container
from tools.brokers.node_files import WAL_LIMIT
from tools.clone import clone_name
from tools.processes.locks import FolderInUseError, FolderLock
from tools.processes.tethered import Tethered

IMAGE = "rabbitmq:4.0-management"
START_TIMEOUT = 90.0  # seconds
# Without it, at-least-once dead-lettering can pause for up to three minutes after a restart.
ARGUMENTS = f"-rabbit dead_letter_worker_publisher_confirm_timeout 3000 -ra wal_max_size_bytes {WAL_LIMIT}"


class BrokerContainer:
    """RabbitMQ in a container, on a port that Docker chooses. A named volume keeps its data between runs."""

    def __init__(self, folder: Path, name: str = clone_name()) -> None:
        """``name`` becomes the name of container, volume and host. ``folder`` gets the log and the lock."""
        self.folder = folder
        self.name = name
        self.url = ""
        self.identity = ""
        self._run: Tethered | None = None
        self._lock: FolderLock | None = None

    def start(self, timeout: float = START_TIMEOUT) -> Server:
        """Start it and wait until AMQP answers, at most ``timeout`` seconds. Raises DockerError.

        A container of this name is from a run that was killed, since the lock is ours. It is removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.folder)
        except FolderInUseError as error:
            raise DockerError(str(error)) from None
        try:
            remove_container(self.name)
            self.identity = f"docker-{_volume_id(self.name)}"
            # The host name is part of the node's name, which is written into the data.
            command = ["docker", "run", "--rm", "--name", self.name, "--hostname", self.name]
            command += ["--publish", "127.0.0.1::5672", "--volume", f"{self.name}:/var/lib/rabbitmq"]
            command += ["--env", f"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS={ARGUMENTS}", IMAGE]
            # In the foreground: if this process dies, docker gets SIGTERM and passes it on.
            self._run = Tethered(command, log=self.folder / "container.log", grace=15.0, lock=self._lock)
            return self._wait_for_amqp(self._run, timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop and remove the container; the volume stays. May be called twice."""
        if self._run is not None:
            # Not every image passes the signal on to the server. Its own tool always reaches it.
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
                return probe(self.url)
            if not run.running:
                raise DockerError(f"the container ended during its start: see {self.folder / 'container.log'}")
            if time.monotonic() > deadline:
                raise DockerError(f"the container's broker gave no answer within {timeout:g} s")
            time.sleep(0.2)


def _volume_id(name: str) -> str:
    """Make the volume if it is missing, and return its label of 8 hex digits: a new volume gets another one.

    Docker's own ``CreatedAt`` is the folder's time stamp and changes with use.
    """
    docker("volume", "create", "--label", f"jobtape.id={secrets.token_hex(4)}", name)  # keeps one that exists
    return docker("volume", "inspect", "--format", '{{index .Labels "jobtape.id"}}', name)
