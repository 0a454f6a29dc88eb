"""What the demo starts and removes again: Jobtape's processes and the mail catcher."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import examples.jobs
from jobtape import JobType
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tools.clone import ROOT
from tools.processes.ports import free_port
from tools.processes.tethered import Tethered
from tools.ready import wait_until_ready

READY_LIMIT = 45.0  # seconds
LOG_LINES = 25


class Stack:
    """``jobtape up`` (API, worker, projector) and a mail catcher, on the broker at ``url``.

    ``folder`` has everything: the view, files, mails and logs. ``close`` removes it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = f"demo-{uuid4().hex[:8]}"
        self.folder = Path(tempfile.mkdtemp(prefix="jobtape-demo-"))
        self.files = self.folder / "files"
        self.mails = self.folder / "mails"
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._running: dict[str, Tethered] = {}
        self._ending = ExitStack()
        self._ending.callback(shutil.rmtree, self.folder)
        self._ending.callback(self._remove_namespace)

    def start(self) -> float:
        """Start the processes and wait until they are ready. Return the seconds it took.

        Raises OSError or NotReadyError.
        """
        begun = time.monotonic()
        smtp_port = free_port(avoid={self.port})
        catcher = ["-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{smtp_port}", "-c", "aiosmtpd.handlers.Mailbox"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBTAPE_")} | {
            "RABBITMQ_URL": self.url,
            "DATABASE_URL": f"sqlite:///{self.folder / 'view.db'}",
            "JOBTAPE_NAMESPACE": self.namespace,
            "JOBTAPE_PORT": str(self.port),
            "JOBTAPE_JOBS": "examples.jobs",
            "JOBTAPE_EXAMPLE_FILES": str(self.files),
            "JOBTAPE_EXAMPLE_SMTP_PORT": str(smtp_port),
        }
        commands = {
            "mail catcher": [sys.executable, *catcher, str(self.mails)],
            "jobtape up": [str(Path(sys.executable).with_name("jobtape")), "up"],
        }
        for name, command in commands.items():
            process = Tethered(command, log=self._log(name), environment=environment, folder=ROOT, grace=10)
            self._running[name] = process
            self._ending.callback(process.stop)
        wait_until_ready(self.base_url, None, lambda: not self.ended(), READY_LIMIT)
        return time.monotonic() - begun

    def ended(self) -> list[str]:
        """Return the names of the processes that should run and have ended."""
        return [name for name, process in self._running.items() if not process.running]

    def logs(self) -> str:
        """Return the last lines that each process printed."""
        parts = []
        for name in self._running:
            lines = self._log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
            parts.append("\n".join([f"--- {name} ---", *lines]))
        return "\n".join(parts)

    def close(self) -> None:
        """Stop the processes, and remove namespace and folder. Blocks for seconds; raises the last error."""
        self._ending.close()

    def _remove_namespace(self) -> None:
        queues = {one.queue for one in vars(examples.jobs).values() if isinstance(one, JobType)}
        asyncio.run(remove_namespace(self.url, Topology(self.namespace).with_queues(queues)))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"
