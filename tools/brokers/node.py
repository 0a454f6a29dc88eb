"""A private RabbitMQ node in a folder of its own, which listens on loopback only.

It needs an installed RabbitMQ and no special rights: it runs as the user who starts it. It gets an Erlang port mapper
of its own, since one that RabbitMQ starts would run forever.
"""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tools.brokers.amqp import Server, UnreachableError, probe
from tools.brokers.node_files import (
    NodeSettings,
    ensure_cookie,
    find_epmd,
    find_server,
    load_settings,
    node_environment,
    write_files,
)
from tools.processes.locks import FolderInUseError, FolderLock
from tools.processes.tethered import Tethered

MISSING = "rabbitmq-server is not installed: install RabbitMQ 3.10 or later"


class NodeError(Exception):
    """The node cannot be started or refused a command. The text is one line that says what to do."""


class PrivateNode:
    """One node, from ``start`` to ``stop``. Several can run in different folders. Not thread-safe."""

    def __init__(self, folder: Path, extra_config: Sequence[str] = (), *, plugins: Sequence[str] = ()) -> None:
        """``folder`` is made if it is missing, and kept. ``extra_config`` are lines for rabbitmq.conf."""
        self.folder = folder.resolve()
        self._plugins = plugins
        self._extra_config = extra_config
        self._loaded: NodeSettings | None = None
        self._server: Tethered | None = None
        self._lock: FolderLock | None = None
        self.version = ""
        """The server's version, like "3.10.8", once it has started."""
        self._see_log = f"see {self.folder / 'log'}"

    @property
    def name(self) -> str:
        """The Erlang node name, ``jobtape-<hash of the folder>@localhost``."""
        return self._settings.name

    @property
    def url(self) -> str:
        """The AMQP URL with user and password. It stays after a restart, unless another server took the port."""
        settings = self._settings
        return f"amqp://{settings.user}:{settings.password}@127.0.0.1:{settings.amqp_port}/"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._server.pid if self._server is not None and self._server.running else None

    def start(self, timeout: float = 60.0) -> None:
        """Start the server on the folder's data and wait until AMQP answers, at most ``timeout`` seconds.

        Raises NodeError if RabbitMQ is missing, the folder is in use, or the server ends or does not answer.
        """
        if self._server is not None:
            raise NodeError(f"{self.name} was started already: stop() it first")
        script, epmd = find_server(), find_epmd()
        if script is None or epmd is None:
            raise NodeError(MISSING)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.folder)
        except FolderInUseError as error:
            raise NodeError(str(error)) from None
        try:
            self._loaded = settings = self.load()
            write_files(self.folder, settings, self._extra_config, self._plugins)
            self._server = Tethered(
                [str(script)],
                companions=self.companions(str(epmd), settings),
                environment=node_environment(self.folder, settings),
                log=self.folder / "log" / "startup.log",
                folder=self.folder,
                lock=self._lock,
            )
            self.version = self._wait_for_amqp(self._server, timeout).version
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise NodeError(f"rabbitmq-server cannot be started: {error}") from error
            raise

    def revive(self) -> bool:
        """Start the server again if it has ended without ``stop``. Returns whether it had. Raises NodeError."""
        if self._server is None or self._server.running:
            return False
        self.stop()
        self.start()
        return True

    def stop(self) -> None:
        """End the server gracefully and keep the data. May be called twice."""
        if self._server is not None:
            self._server.stop()
        self._forget()

    def kill(self) -> None:
        """End the server like a power cut, by SIGKILL. ``start`` continues from its data."""
        if self._server is not None:
            self._server.kill()
        self._forget()

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run rabbitmqctl on this node and return what it printed. Takes a second or two. Raises NodeError.

        For example ``ctl("stop_app")``, ``ctl("set_vm_memory_high_watermark", "0")``.
        """
        script = find_server()
        if script is None:
            raise NodeError(MISSING)
        try:
            done = subprocess.run(
                [str(script.with_name("rabbitmqctl")), "--quiet", *arguments],
                env=node_environment(self.folder, self._settings),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NodeError(f"rabbitmqctl {arguments[0]} took more than {timeout:g} s: {self._see_log}") from None
        if done.returncode != 0:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            reason = " ".join(lines[:2])[:300] or f"exit code {done.returncode}"
            raise NodeError(f"rabbitmqctl {arguments[0]} failed: {reason}")
        return done.stdout

    def load(self) -> NodeSettings:
        """Return the settings to start with."""
        ensure_cookie(self.folder)
        return load_settings(self.folder)

    def companions(self, epmd: str, settings: NodeSettings) -> list[list[str]]:
        """Return the command lines of the programs that run beside the server: its port mapper."""
        return [[epmd, "-port", str(settings.epmd_port), "-address", "127.0.0.1"]]

    def _wait_for_amqp(self, server: Tethered, timeout: float) -> Server:
        """Wait for an answer. RabbitMQ opens its listener as the last step of its start, so it is ready then."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(UnreachableError):
                return probe(self.url)
            if not server.running:
                raise NodeError(f"rabbitmq-server ended during its start: {self._see_log}")
            if time.monotonic() > deadline:
                raise NodeError(f"rabbitmq-server gave no answer within {timeout:g} s: {self._see_log}")
            time.sleep(0.1)

    @property
    def _settings(self) -> NodeSettings:
        if self._loaded is None:
            raise NodeError("the node was not started yet: call start()")
        return self._loaded

    def _forget(self) -> None:
        self._server = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
