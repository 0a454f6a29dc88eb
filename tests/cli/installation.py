"""A folder with a job module, and an environment that names a broker namespace and a SQLite file of its own."""

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest.mock import patch

import httpx

from jobtape.cli.main import main
from tests.cli.programs import COMMAND, LIMIT, Program, until
from tools.processes.ports import free_port

PROCESS_COMMANDS: Final = frozenset(
    {
        "up",
        "api",
        "worker",
        "projector",
        "outbox",
        "init",
        "destroy",
        "doctor",
        "subscriptions",
        "export",
        "import",
        "--version",
    }
)
"""Commands that run parts, configure logging or open broker and database. The others only use the API."""
JOBS = '''
import os
from jobtape import Concurrency, Context, Cron, job

@job("add")
def add(x: int, y: int) -> int:
    return x + y

@job("pid")
def pid() -> int:
    return os.getpid()

@job("boom")
def boom(text: str) -> None:
    raise ValueError(text)

@job("sweep", schedule=Cron("30 2 * * *", tz="Europe/Berlin"), limits=[Concurrency(3)])
def sweep() -> None:
    pass

@job("gate", queue="gates")
def gate(ctx: Context, path: str) -> str:
    """Wait until a program writes to the named pipe, and return what it writes."""
    ctx.progress(0.5, "at the gate")
    with open(path) as pipe:
        return pipe.read()
'''


@dataclass
class Installation:
    """A folder to start programs in. ``env`` is their environment; changes apply to programs that start later."""

    folder: Path
    env: dict[str, str]
    port: int
    programs: list[Program] = field(default_factory=list)

    def start(self, *arguments: str, **variables: str) -> Program:
        """Start ``jobtape`` with these arguments."""
        program = Program([*COMMAND, *arguments], {**self.env, **variables}, self.folder)
        self.programs.append(program)
        return program

    def up(self, **variables: str) -> Program:
        """Start ``jobtape up``, and return when all its parts are ready."""
        program = self.start("up", **variables)
        program.line_with("worker ", "taking jobs")
        until(lambda: health(f"http://127.0.0.1:{self.port}")[0] == 200, "the API is ready")
        return program

    def submit(self, job_type: str, payload: object, *options: str) -> str:
        """Run ``jobtape submit`` successfully, and return what it prints."""
        done = self.run("submit", job_type, json.dumps(payload), *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run ``jobtape`` with these arguments to its end.

        Plain calls of commands that only use the API run in this process, where they need no time to start. Others may
        configure logging, which would stay so for the tests after them.
        """
        local = arguments[:2] == ("schedules", "sync")  # imports the job modules
        shown = arguments[:1] == ("outbox",) and not {"--list", "--remove"}.isdisjoint(arguments)
        known = bool(arguments) and arguments[0] not in PROCESS_COMMANDS
        if (known or shown) and not local and not stdin and not variables:
            return self._run_here(arguments)
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**self.env, **variables},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT,
            check=False,
        )

    def _run_here(self, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        code: object = 0
        with (
            patch.dict(os.environ, self.env, clear=True),
            patch.object(sys, "argv", ["jobtape", *arguments]),
            chdir(self.folder),
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def shell(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run a line of shell, in which ``jobtape`` runs the code under test."""
        return subprocess.run(
            ["sh", "-c", f'jobtape() {{ {shlex.join(COMMAND)} "$@"; }}; {line}'],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def gate(self) -> Path:
        """Create a named pipe for the job type ``gate``."""
        path = self.folder / "gate"
        os.mkfifo(path)
        return path

    def close(self) -> None:
        """End all programs."""
        for program in self.programs:
            program.close()


def installation_in(folder: Path, **variables: str) -> Installation:
    """Return an installation in this folder, with the job module above."""
    (folder / "jobs_here.py").write_text(JOBS)
    port = free_port()
    own = ("JOBTAPE_", "RABBITMQ_", "DATABASE_", "HTTP_PROXY", "http_proxy", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    env |= {
        "DATABASE_URL": f"sqlite:///{folder / 'view.db'}",
        "JOBTAPE_JOBS": "jobs_here",
        "JOBTAPE_PORT": str(port),
        "JOBTAPE_URL": f"http://127.0.0.1:{port}",
        # No broker listens there; a test that needs one sets another URL.
        "RABBITMQ_URL": "amqp://guest:secret@127.0.0.1:1/",
    }
    return Installation(folder, env | variables, port)


def health(url: str) -> tuple[int, str]:
    """Return status and body of ``/health/ready``; the status is 0 when no server listens."""
    try:
        answer = httpx.get(f"{url}/health/ready", timeout=5, trust_env=False)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text
