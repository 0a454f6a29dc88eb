"""HTTP: requests a second with many connections, beside FastAPI routes that do nothing."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from benchmarks.report.section import Chart, Section, table
from benchmarks.rig.installation import Part, until
from benchmarks.rig.plan import Plan
from benchmarks.rig.processes import usage
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import ours
from tools.clone import ROOT
from tools.processes.ports import free_port

JOB: Final = {"type": "add", "payload": {"x": 1, "y": 1}}
BASE: Final = "FastAPI, POST that does nothing"
LIVE: Final = "Jobtape, GET /health/live"


@dataclass(frozen=True)
class Target:
    """A request. ``path``: one for all connections, or several with commas. ``pid``: the server's process id."""

    name: str
    url: str
    pid: int
    method: str
    path: str
    body: str = ""

    def load(self, plan: Plan) -> dict[str, float]:
        """Send it for some seconds. Return rate, p50, p99, and the server's processor time of a request in µs."""
        before = usage(self.pid).cpu
        command = [sys.executable, "-m", "benchmarks.rig.load.http_load", self.url, self.method, self.path]
        command += [str(plan.connections), str(plan.http_seconds), *([self.body] if self.body else [])]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        # The load runs half a second longer than it counts.
        requests = found["rate"] * (plan.http_seconds + 0.5)
        return {**found, "cpu": (usage(self.pid).cpu - before) / requests * 1e6}


def measure(stage: Stage, plan: Plan) -> Section:
    """Measure all targets in turn, several rounds."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        targets = [*stack.enter_context(_fastapi(stage)), *stack.enter_context(_jobtape(stage, plan))]
        for number in range(plan.rounds):
            for target in targets if number % 2 == 0 else reversed(targets):
                found[target.name].append(target.load(plan))
                log(f"round {number + 1}: {target.name} {found[target.name][-1]['rate']:,.0f}/s")
    ordered = {target.name: found[target.name] for target in targets}
    chart = Chart(
        "http",
        f"HTTP, {plan.connections} connections, one server process",
        "requests a second",
        {"": {name: _median(rounds, "rate") for name, rounds in ordered.items()}},
    )
    return Section("http", "\n\n".join(_text(plan, ordered)), [chart])


def _text(plan: Plan, found: dict[str, list[dict[str, float]]]) -> Iterable[str]:
    yield (
        f"One server process, {plan.connections} connections, medians of {plan.rounds} rounds of "
        f"{plan.http_seconds:g} s:"
    )
    base, live = _median(found[BASE], "rate"), _median(found[LIVE], "rate")
    yield table(
        ["", "requests/s", "÷ FastAPI's POST", "÷ /health/live", "p50, p99 in ms", "server CPU a request"],
        [
            [
                name,
                f"{_median(rounds, 'rate'):,.0f}",
                f"{_median(rounds, 'rate') / base:.2f}",
                f"{_median(rounds, 'rate') / live:.2f}",
                f"{_median(rounds, 'p50'):.1f}, {_median(rounds, 'p99'):.1f}",
                f"{_median(rounds, 'cpu'):,.0f} µs",
            ]
            for name, rounds in found.items()
        ],
    )


@contextmanager
def _fastapi(stage: Stage) -> Iterator[list[Target]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(stage.python), "-m", "uvicorn", "benchmarks.peers.web:app", "--port", str(port), "--no-access-log"]
    path = stage.folder / "fastapi.log"
    with path.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=output, stderr=output)
    try:
        until(lambda: _answers(url), "FastAPI answers", 60)
        body = json.dumps(JOB)
        yield [
            Target(BASE, url, process.pid, "POST", "/jobs", body),
            Target("FastAPI, GET that does nothing", url, process.pid, "GET", "/jobs/1"),
            Target("FastAPI, BackgroundTasks (not durable)", url, process.pid, "POST", "/background", body),
        ]
    finally:
        Part("fastapi", process, path).stop()


@contextmanager
def _jobtape(stage: Stage, plan: Plan) -> Iterator[list[Target]]:
    with ExitStack() as stack:
        targets = []
        for system in ours(plan.databases):
            running = stack.enter_context(system.run(stage))
            made, api = running.installation, running.processes["api"]
            assert made is not None
            # The jobs are not executed: this is about the API.
            for part in made.parts:
                if part.name == "worker":
                    part.stop()
            with tempfile.TemporaryDirectory(), httpx.Client(base_url=made.url) as client:
                job_ids = [
                    client.post("/jobs", json=JOB).raise_for_status().json()["id"] for _ in range(plan.connections)
                ]
                until(lambda c=client, j=job_ids[-1]: c.get(f"/jobs/{j}").is_success, "the jobs are readable")  # type: ignore[misc]
            if system.database == "sqlite":
                targets.append(Target(LIVE, made.url, api, "GET", "/health/live"))
            targets.append(Target(f"{system.name}, POST /jobs", made.url, api, "POST", "/jobs", json.dumps(JOB)))
            targets.append(
                Target(
                    f"{system.name}, GET /jobs/{{id}}",
                    made.url,
                    api,
                    "GET",
                    ",".join(f"/jobs/{job_id}" for job_id in job_ids),
                )
            )
        yield targets


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/jobs/1", timeout=5).is_success
    except httpx.HTTPError:
        return False


def _median(rounds: list[dict[str, float]], what: str) -> float:
    return statistics.median(each[what] for each in rounds)
