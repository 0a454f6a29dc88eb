"""A private RabbitMQ node in a folder of its own: on loopback only, beside whatever else runs on the machine.

It needs an installed RabbitMQ and no rights: it runs as whoever starts it. An Erlang port mapper of its own comes and
goes with it, since one that RabbitMQ starts by itself would stay for ever.
"""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.brokers.amqp import Server, UnreachableError, probe
from tools.brokers.node_files import (
    NodeSettings,
    end_leftover_node,
    find_epmd,
    find_server,
    load_settings,
    node_environment,
    take_cookie,
    write_files,
    write_program,
)
from tools.processes.locks import FolderInUseError, FolderLock
from tools.processes.tethered import Tethered


class NodeError(Exception):
    """The node can't be had or didn't do what was asked; the text is one line that says what to do."""


class PrivateNode:
    """One node. Starts at `start`, not before; several run side by side in different folders. Not thread-safe."""

    def __init__(
        self,
        folder: Path,
        extra_config: Sequence[str] = (),
        *,
        plugins: Sequence[str] = (),
        cluster: "PrivateNode | None" = None,
    ) -> None:
        """`folder` is made when missing and kept; `extra_config` are lines for rabbitmq.conf.

        `cluster`: a node that runs, whose cluster this one joins at its first start; it needs that node's port mapper
        whenever it starts.
        """
        self.folder = folder.resolve()
        self._cluster = cluster
        self._plugins = tuple(plugins)
        self._extra_config = tuple(extra_config)
        self._settings: NodeSettings | None = None
        self._server: Tethered | None = None
        self._lock: FolderLock | None = None
        self._answer: Server | None = None

    @property
    def name(self) -> str:
        """The Erlang node name, `jobtape-<hash of the folder>@localhost`."""
        return self._known().name

    @property
    def port(self) -> int:
        """The AMQP port on 127.0.0.1. The same after a restart, unless somebody took it in between."""
        return self._known().amqp_port

    @property
    def url(self) -> str:
        """The AMQP URL with user and password."""
        known = self._known()
        return f"amqp://{known.user}:{known.password}@127.0.0.1:{known.amqp_port}/"

    @property
    def version(self) -> str:
        """What the server says of itself, like "3.10.8"."""
        if self._answer is None:
            raise NodeError("the node was not started yet: call start()")
        return self._answer.version

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._server.pid if self._server is not None and self._server.running else None

    @property
    def ctl_program(self) -> Path:
        """This node's own rabbitmqctl, for people and other programs."""
        return self.folder / "rabbitmqctl"

    def start(self, timeout: float = 60.0) -> None:
        """Starts the server on the folder's data and waits until AMQP answers, `timeout` seconds at most.

        What an earlier run left running here, because its parent died with SIGKILL, is ended first.
        Raises NodeError when RabbitMQ is missing, the folder is in use, or the server ends or doesn't answer.
        """
        if self._server is not None:
            raise NodeError(f"{self.name} was started already: stop() it first")
        script, epmd = find_server(), find_epmd()
        if script is None or epmd is None:
            raise NodeError("rabbitmq-server is not installed: install RabbitMQ 3.10 or later")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.folder)
        except FolderInUseError as error:
            raise NodeError(str(error)) from None
        try:
            end_leftover_node(self.folder)
            self._settings = settings = self._load()
            write_files(self.folder, settings, self._extra_config, self._plugins)
            write_program(self.ctl_program, script.with_name("rabbitmqctl"), node_environment(self.folder, settings))
            self._server = Tethered(
                [str(script)],
                companions=[] if self._cluster else [_port_mapper(epmd, settings)],
                environment=node_environment(self.folder, settings),
                log=self.folder / "log" / "startup.log",
                folder=self.folder,
            )
            (self.folder / "node.pid").write_text(f"{self._server.pid} {settings.name}")
            self._answer = self._wait_for_amqp(self._server, timeout)
            if self._cluster is not None:
                self._join(self._cluster)
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise NodeError(f"rabbitmq-server can't be started: {error}") from error
            raise

    def stop(self) -> None:
        """Ends the server gracefully (SIGTERM closes queues and logs), keeps the data. May be called twice."""
        if self._server is not None:
            self._server.stop()
        self._forget()

    def kill(self) -> None:
        """Ends the server as a power cut would: SIGKILL to the Erlang machine. `start` goes on from its data."""
        if self._server is not None:
            self._server.kill()
        self._forget()

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Runs rabbitmqctl against this node and returns what it printed; raises NodeError when it fails.

        For example `ctl("stop_app")`, `ctl("set_vm_memory_high_watermark", "0")`. Takes a second or two.
        """
        script = find_server()
        if script is None:
            raise NodeError("rabbitmqctl is not installed: install RabbitMQ 3.10 or later")
        try:
            done = subprocess.run(
                [str(script.with_name("rabbitmqctl")), "--quiet", *arguments],
                env=node_environment(self.folder, self._known()),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NodeError(f"rabbitmqctl {arguments[0]} took more than {timeout:g} s: see {self._log()}") from None
        if done.returncode != 0:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            said = " ".join(lines[:2])[:300] or f"exit code {done.returncode}"
            raise NodeError(f"rabbitmqctl {arguments[0]} failed: {said}")
        return done.stdout

    def _load(self) -> NodeSettings:
        settings = load_settings(self.folder)
        if self._cluster is None:
            return settings
        first = self._cluster
        take_cookie(first.folder, self.folder)
        known = first._known()
        return replace(settings, user=known.user, password=known.password, epmd_port=known.epmd_port)

    def _join(self, first: "PrivateNode") -> None:
        if first.name in self.ctl("eval", "rabbit_nodes:all_running()."):
            return
        for step in (["stop_app"], ["join_cluster", first.name], ["start_app"]):
            self.ctl(*step)

    def _wait_for_amqp(self, server: Tethered, timeout: float) -> Server:
        """RabbitMQ opens its listener as the last step of its start, so an answer means that it is ready."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(UnreachableError):
                return probe(self.url, timeout=5.0)
            if not server.running:
                raise NodeError(f"rabbitmq-server ended during its start: see {self._log()}")
            if time.monotonic() > deadline:
                raise NodeError(f"rabbitmq-server gave no answer within {timeout:g} s: see {self._log()}")
            time.sleep(0.1)

    def _known(self) -> NodeSettings:
        if self._settings is None:
            raise NodeError("the node was not started yet: call start()")
        return self._settings

    def _log(self) -> Path:
        return self.folder / "log"

    def _forget(self) -> None:
        self._server = None
        (self.folder / "node.pid").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _port_mapper(epmd: Path, settings: NodeSettings) -> list[str]:
    return [str(epmd), "-port", str(settings.epmd_port), "-address", "127.0.0.1"]
