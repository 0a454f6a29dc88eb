"""Tests ``jobtape worker --processes``, and that a worker which is blocked is restarted."""

import json
import os
import signal

from tests.cli.installation import Installation
from tests.cli.programs import alive, until


def test_worker_processes_all_run_jobs(broker_installation: Installation) -> None:
    broker_installation.run("init")
    program = broker_installation.start("worker", "--processes", "2", "--queues", "default", "--concurrency", "1")
    pids = [int(program.line_with(f"worker-{i} is process").rpartition(" ")[2]) for i in (1, 2)]
    for i in (1, 2):
        program.line_with(f"worker-{i} ", "taking jobs from default")
    os.kill(pids[0], signal.SIGKILL)
    program.line_with("worker-1 ended (SIGKILL); starting it again in 0.5 s")
    program.line_with("worker-1 ", "taking jobs", times=2)
    program.send(signal.SIGTERM)
    assert program.code() == 0, program.lines
    until(lambda: not any(map(alive, pids)), "both have ended")


def test_worker_blocked_by_async_handler_is_restarted(broker_installation: Installation) -> None:
    jobs = broker_installation.folder / "jobs_here.py"
    spin = '\n@job("aspin", timeout=0.5)\nasync def aspin() -> None:\n    while True:\n        pass\n'
    jobs.write_text(jobs.read_text() + spin)
    program = broker_installation.up(JOBTAPE_GRACE_PERIOD="2")
    job_id = broker_installation.submit("aspin", {})
    program.line_with("worker ended (exit code 1); starting it again")
    job = json.loads(broker_installation.run("status", job_id, "--watch", "--json").stdout)
    assert (job["state"], job["error"]["type"]) == ("failed", "TimeoutError")
    assert broker_installation.submit("add", {"x": 1, "y": 1}, "--wait") == "2"
    assert any("blocks the loop of all async handlers" in line for line in program.lines)
