"""An application whose endpoints fork under ``jobtape.lifespan``: signals end the child, and it continues."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from jobtape.schemas.topology import Topology
from tests.cli.programs import COMMAND, Program, until
from tools.processes.ports import free_port

APPLICATION = """
import multiprocessing
import os
import signal
import time
from functools import partial

from fastapi import FastAPI

import jobtape
from jobtape import job


@job("add")
def add(x: int, y: int) -> int:
    return x + y


app = FastAPI(lifespan=partial(jobtape.lifespan, job_types=[add]))


@app.get("/terminated")
def terminated() -> int:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(20)
    return child.exitcode


@app.get("/pool")
async def pool() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as workers:
        return workers.map(abs, [-1, -2])


@app.get("/killed")
def killed() -> list[int]:
    ends = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, number)
        ends.append(os.waitpid(child, 0)[1] & 0x7F)
    return ends


@app.post("/jobs")
async def submit() -> str:
    return (await add.submit(x=1, y=2)).id
"""


def test_endpoints_that_fork_leave_the_application_running(
    tmp_path: Path, broker_url: str, topology: Topology, sqlite_url: str
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "application:app", "--port", str(port)]
    environment = os.environ | {
        "RABBITMQ_URL": broker_url,
        "DATABASE_URL": sqlite_url,
        "JOBTAPE_NAMESPACE": topology.namespace,
    }
    subprocess.run([*COMMAND, "init"], env=environment, check=True, capture_output=True, timeout=60)
    program = Program(command, environment, tmp_path)
    try:
        program.line_with("Uvicorn running")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            # Only where the tape is there a submission is accepted.
            until(lambda: client.post("/jobs").status_code == 200, "a job is accepted")
            for _ in range(10):
                assert client.get("/terminated").json() == -15
                assert client.get("/killed").json() == [15, 2, 1]
            assert client.get("/pool").json() == [1, 2]
            assert client.post("/jobs").status_code == 200
        assert program.running(), program.lines
    finally:
        program.close()
