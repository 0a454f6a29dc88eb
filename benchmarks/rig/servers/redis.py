"""A private Redis for the results of peers. It needs ``redis-server``, which is installed on Debian as root."""

import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.packages import ensure_installed
from tools.processes.ports import free_port
from tools.processes.tethered import Tethered

START_TIMEOUT: Final = 20.0
DURABLE: Final = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
"""What Redis's documentation recommends for data that must survive a crash but for its last second."""


class RedisServer:
    """A Redis on a free port of 127.0.0.1, with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        program = ensure_installed(lambda: shutil.which("redis-server"), "redis-server")
        folder.mkdir(parents=True)
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(folder), *DURABLE]
        self._server = Tethered([program, *options], log=folder / "redis.log", folder=folder)
        self._wait()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    def clear(self) -> None:
        """Remove all results."""
        self._command("FLUSHALL")

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with suppress(OSError):
                self._command("PING")
                return
            if time.monotonic() > deadline:
                raise TimeoutError("redis-server did not start")
            time.sleep(0.05)

    def _command(self, command: str) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(f"{command}\r\n".encode())
            if not (answer := connection.recv(100)).startswith(b"+"):
                raise OSError(answer.decode())
