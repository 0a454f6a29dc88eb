"""Run the commands of the README in a copy of the clone: ``make run``, a job, an application."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tests.cli.programs import Program, until
from tests.tools.copy_of_clone import copy_clone, plain_environment
from tools.clone import ROOT, clone_name
from tools.processes.ports import free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python)?\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def block_with(text: str) -> str:
    """Return the only block of the README that contains ``text``."""
    (found,) = [block for block in BLOCKS if text in block]
    return str(found)


class Newcomer:
    """Somebody who follows the README in ``folder``, with ports that are free here."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        self.folder = copy_clone(folder)
        (folder / "hello.py").write_text(block_with('@job("hello"'))
        (folder / "app.py").write_text(block_with("jobtape.lifespan"))
        (folder / "results.py").write_text(block_with("jobtape.subscribe"))
        port = free_port()
        self.port, self.app_port = str(port), str(free_port(avoid={port}))
        (folder / "ask.py").write_text(self._here(block_with("SyncClient(")))
        self._plain = plain_environment()
        self._for_make = {"RABBITMQ_URL": broker_url, "JOBTAPE_PORT": self.port}
        self._programs: list[Program] = []

    def start(self, block: str, ready: str) -> Program:
        """Start a block whose last line keeps running. Return when that has printed ``ready``."""
        made = "make run" in block
        # make would only check .venv before.
        *before, last = self._here(block).replace("make run", ".venv/bin/python -m tools.run").strip().splitlines()
        script = "\n".join([*before, f"exec env {last}"])
        environment = self._plain | (self._for_make if made else {})
        program = Program(["sh", "-ec", script], environment, self.folder)
        self._programs.append(program)
        program.line_with(ready)
        return program

    def type(self, block: str) -> str:
        """Run a block and return what it printed. It must exit with 0."""
        environment = self._plain | {"JOBTAPE_URL": f"http://127.0.0.1:{self.port}"}
        done = subprocess.run(
            ["sh", "-ec", self._here(block)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """End the started programs."""
        for program in reversed(self._programs):
            program.close()

    def _here(self, block: str) -> str:
        for written, free in (("8000", self.port), ("8001", self.app_port)):
            block = re.sub(rf"(127\.0\.0\.1:|--port ){written}", rf"\g<1>{free}", block)
        return block


@pytest.fixture
def newcomer(tmp_path: Path, broker_url: str) -> Iterator[Newcomer]:
    made = Newcomer(tmp_path, broker_url)
    yield made
    made.close()
    topology = Topology(clone_name(tmp_path)).with_queues(["default", "mail", "images", "files"])
    anyio.run(remove_namespace, broker_url, topology)


def test_readme_first_jobs(newcomer: Newcomer) -> None:
    run = newcomer.start("make run", "curl -s")
    printed = newcomer.type(block_with("submit sleep.five"))
    accepted, total, *rest = printed.splitlines()
    assert (json.loads(accepted)["type"], total) == ("add", "7")
    assert [line.split()[1:3] for line in rest[-3:]] == [["sleep.five", "succeeded"], *[["add", "succeeded"]] * 2]
    copied = run.line_with("curl -s").strip()
    assert json.loads(newcomer.type(copied))["state"]
    run.send(signal.SIGINT)
    assert run.code() == 0


def test_readme_own_job_and_application(newcomer: Newcomer) -> None:
    run = newcomer.start(block_with("JOBTAPE_JOBS=hello make run"), "curl -s")
    known = [one["name"] for one in json.loads(newcomer.type(run.line_with("curl -s")))["items"]]
    assert [name for name in known if not name.startswith("jobtape.")] == ["hello"]
    assert newcomer.type(block_with("submit hello")) == '"Hello, Ada! "\n'
    assert newcomer.type(block_with("python ask.py")) == "Hello, Ada! \n"
    newcomer.start(block_with("uvicorn app:app"), "Uvicorn running")
    accepted, *listed = newcomer.type(block_with("/greetings?name=Ada")).splitlines()
    job = json.loads(accepted)["job"]
    assert listed[1].split()[:2] == [job, "hello"]
    # The mounted API reads the view of ``make run``.
    url = f"http://127.0.0.1:{newcomer.app_port}/jobtape/jobs/{job}"
    until(lambda: httpx.get(url, trust_env=False).json().get("state") == "succeeded", "the greeting has succeeded")
    newcomer.start(block_with("-u results.py"), "succeeded Hello, Ada!")
