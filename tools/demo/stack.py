"""What the demo starts and takes away again: Jobtape's processes and the mail catcher."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx

import examples.jobs
from jobtape import JobType
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tools.clone import ROOT
from tools.processes.ports import free_port
from tools.processes.tethered import Tethered

READY_SECONDS = 45.0
LOG_LINES = 25


class NotStartedError(Exception):
    """Jobtape didn't become ready; the text has what it printed."""


class Stack:
    """``jobtape up`` (API, worker, projector) and a mail catcher on the broker at ``url``.

    Everything is in ``folder``: the view, files, mails and logs. ``close`` takes all of it away.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = f"demo-{uuid4().hex[:8]}"
        self.folder = Path(tempfile.mkdtemp(prefix="jobtape-demo-"))
        self.files = self.folder / "files"
        self.mails = self.folder / "mails"
        self.port = free_port()
        self.smtp_port = free_port(avoid={self.port})
        self._running: list[tuple[str, Tethered]] = []

    @property
    def base_url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the processes, without waiting until they are ready. Blocks for a moment. Raises OSError."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBTAPE_")} | {
            "RABBITMQ_URL": self.url,
            "DATABASE_URL": f"sqlite:///{self.folder / 'view.db'}",
            "JOBTAPE_NAMESPACE": self.namespace,
            "JOBTAPE_PORT": str(self.port),
            "JOBTAPE_JOBS": "examples.jobs",
            "JOBTAPE_EXAMPLE_FILES": str(self.files),
            "JOBTAPE_EXAMPLE_MAILS": str(self.mails),
            "JOBTAPE_EXAMPLE_SMTP_PORT": str(self.smtp_port),
        }
        commands = {
            "mail catcher": [sys.executable, "-m", "examples.mail_catcher"],
            "jobtape up": [str(Path(sys.executable).with_name("jobtape")), "up"],
        }
        for name, command in commands.items():
            process = Tethered(command, log=self._log(name), environment=environment, folder=ROOT, grace=10)
            self._running.append((name, process))

    async def ready(self) -> float:
        """Wait until the API says that every part is ready; the seconds it took. Raises NotStartedError."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        said = "nothing"
        async with httpx.AsyncClient(base_url=self.base_url, timeout=5, trust_env=False) as http:
            while clock() - begun < READY_SECONDS:
                if dead := self.dead():
                    raise NotStartedError(f"{' and '.join(dead)} ended by itself:\n{self.logs()}")
                try:
                    answer = await http.get("/health/ready")
                except httpx.TransportError:
                    pass  # nobody listens yet
                else:
                    if answer.status_code == 200:
                        return clock() - begun
                    said = f"{answer.status_code} {answer.text[:500]}"
                await asyncio.sleep(0.1)
        raise NotStartedError(f"not ready after {READY_SECONDS:.0f} s; /health/ready says {said}\n{self.logs()}")

    def dead(self) -> list[str]:
        """The names of those that should run and don't."""
        return [name for name, process in self._running if not process.running]

    def logs(self) -> str:
        """The last lines that each process printed."""
        parts = []
        for name, _ in self._running:
            lines = self._log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
            parts.append("\n".join([f"--- {name} ---", *lines]))
        return "\n".join(parts)

    def close(self) -> list[str]:
        """Stop the processes and remove the folder and the namespace; what of it didn't work. Blocks for seconds."""
        steps: list[tuple[str, Callable[[], object]]] = [
            *((f"stopping {name}", process.stop) for name, process in reversed(self._running)),
            ("removing the namespace from the broker", self._remove_namespace),
            ("removing the folder", lambda: shutil.rmtree(self.folder)),
        ]
        faults = []
        for what, step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 the next step must be taken whatever became of this one
                faults.append(f"{what}: {type(error).__name__}: {error}")
        return faults

    def _remove_namespace(self) -> None:
        asyncio.run(remove_namespace(self.url, Topology(self.namespace).with_queues(queues())))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"


def queues() -> set[str]:
    """The work queues of the example jobs."""
    return {one.queue for one in vars(examples.jobs).values() if isinstance(one, JobType)}
