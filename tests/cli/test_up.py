"""Tests ``jobtape up``: it runs jobs, stops on signals, and restarts parts that die."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.installation import Installation
from tests.cli.programs import Program, alive, until
from tools.processes.ports import is_free

PARTS = ("api", "worker", "projector")


def processes(program: Program) -> list[int]:
    """Return the process ids of the parts that ``program`` started first."""
    return [int(program.line_with(f"{part} is process").rpartition(" ")[2]) for part in PARTS]


def environment(process: int) -> dict[str, str]:
    """Return the environment of a process (Linux only)."""
    entries = Path(f"/proc/{process}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_up_runs_a_job_to_its_end(broker_installation: Installation) -> None:
    program = broker_installation.up()
    environments = dict(zip(PARTS, map(environment, processes(program)), strict=True))
    assert environments["api"]["PYTHONMALLOC"] == "malloc", "the C library's allocator returns memory to the system"
    assert "PYTHONMALLOC" not in environments["worker"]
    job = json.loads(broker_installation.submit("add", {"x": 3, "y": 4}, "--wait", "--label", "customer=42", "--json"))
    assert (job["state"], job["result"], job["labels"]) == ("succeeded", 7, {"customer": "42"})

    status = broker_installation.run("status", job["id"])
    assert status.returncode == 0
    assert "succeeded" in status.stdout
    listed = json.loads(broker_installation.run("list", "--type", "add", "--label", "customer=42", "--json").stdout)
    assert [item["id"] for item in listed["items"]] == [job["id"]]
    assert job["id"] in broker_installation.run("list", "--state", "succeeded").stdout
    events = json.loads(broker_installation.run("events", job["id"], "--json").stdout)["items"]
    assert [events[0]["type"], events[-1]["type"]] == ["jobtape.job.submitted", "jobtape.job.succeeded"]

    parts = processes(program)
    program.send(signal.SIGTERM)
    assert program.code() == 0, program.lines
    assert not any(map(alive, parts))
    assert is_free(broker_installation.port)


def test_killed_part_is_restarted(broker_installation: Installation) -> None:
    program = broker_installation.up()
    first = int(broker_installation.submit("pid", {}, "--wait"))
    os.kill(first, signal.SIGKILL)
    program.line_with("worker ended (SIGKILL); starting it again")
    second = int(broker_installation.submit("pid", {}, "--wait"))
    assert second != first
    assert program.line_with("worker is process", times=2).endswith(f" {second}")


def test_running_job_ends_before_up_stops(broker_installation: Installation) -> None:
    program = broker_installation.up()
    gate = broker_installation.gate()
    job_id = broker_installation.submit("gate", {"path": str(gate)})
    with gate.open("w") as pipe:  # open() returns when the job has opened the other end
        program.send(signal.SIGTERM)
        program.line_with("worker ", "1 running")
        pipe.write("open")
    assert program.code() == 0, program.lines
    assert not any("killing it" in line for line in program.lines)

    broker_installation.up()
    job = json.loads(broker_installation.run("status", job_id, "--watch", "--json").stdout)
    assert (job["state"], job["result"]) == ("succeeded", "open")
    events = json.loads(broker_installation.run("events", job_id, "--json").stdout)["items"]
    names = [event["type"].rpartition(".")[2] for event in events]
    assert names.count("succeeded") == 1
    assert names.count("started") <= 1, "the job was not executed again"


def test_second_signal_ends_up_at_once(broker_installation: Installation) -> None:
    program = broker_installation.up()
    gate = broker_installation.gate()
    broker_installation.submit("gate", {"path": str(gate)})
    parts = processes(program)
    with gate.open("w"):
        program.send(signal.SIGTERM)
        program.line_with("a second signal ends it at once")

        def ended() -> bool:
            program.send(signal.SIGTERM)
            return not program.running()

        until(ended, "a second signal ends the supervisor")
        assert program.code() == 128 + signal.SIGTERM
        until(lambda: not any(map(alive, parts)), "the parts end too")


def test_duplicate_signal_counts_once(broker_installation: Installation) -> None:
    program = broker_installation.up()
    program.send(signal.SIGTERM)
    program.line_with("stopping")
    program.send(signal.SIGTERM)  # as from `timeout`, which signals the process and its group
    assert program.code() == 0


def test_parts_end_with_killed_supervisor(broker_installation: Installation) -> None:
    program = broker_installation.up(JOBTAPE_API_WORKERS="2")
    gate = broker_installation.gate()
    broker_installation.submit("gate", {"path": str(gate)})
    parts = processes(program)
    with gate.open("w"):  # keeps a job running in the worker
        program.send(signal.SIGKILL)
        until(lambda: not any(map(alive, parts)), "the parts end")
        until(lambda: is_free(broker_installation.port), "the API's own processes end")


def test_up_waits_for_missing_broker(installation: Installation) -> None:
    program = installation.start("up")
    for part in PARTS:
        line = program.line_with(f"{part} ", "trying again until it answers")
        assert "guest:secret" not in line
    parts = processes(program)
    assert all(map(alive, parts))
    program.send(signal.SIGINT)
    assert program.code() == 0
    assert not any(map(alive, parts))


@pytest.mark.parametrize("level", ["debug", "warning"])
def test_every_line_names_its_part(installation: Installation, level: str) -> None:
    program = installation.start("up", "--log-level", level)
    program.line_with("worker ", "trying again until it answers")
    program.send(signal.SIGTERM)
    assert program.code() == 0
    assert all(line.startswith(("api ", "worker ", "projector ", "jobtape ")) for line in program.lines)
