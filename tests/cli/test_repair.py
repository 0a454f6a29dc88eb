"""Tests ``redrive``, ``workers``, ``dead`` and ``doctor``, with a running Jobtape and without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
import anyio
import httpx
import pytest

from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tests.cli.installation import Installation, installation_in
from tests.cli.programs import until
from tests.namespaces import environment_for, some_topology


@pytest.fixture(scope="module")
def topology() -> Topology:
    return some_topology("default", "gates")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, broker_url: str, topology: Topology) -> Iterator[Installation]:
    """Run one ``jobtape up`` for all tests of this module. Its worker does not serve the queue ``gates``."""
    folder = tmp_path_factory.mktemp("repair")
    made = installation_in(folder, **environment_for(broker_url, topology))
    made.up(JOBTAPE_QUEUES="default")
    yield made
    made.close()
    anyio.run(remove_namespace, broker_url, topology)


def submit_failing(installation: Installation, n: int, label: str) -> list[str]:
    """Submit ``n`` jobs with this label, wait until they have failed, and return their ids."""
    found = [installation.submit("boom", {"text": "no"}, "--label", f"kind={label}") for _ in range(n)]
    until(lambda: len(failed_ids(installation, label, run=1)) == n, "the jobs have failed")
    return found


def failed_ids(installation: Installation, label: str, run: int) -> list[str]:
    """Return the ids of jobs with this label that failed in that run."""
    done = installation.run("list", "--label", f"kind={label}", "--state", "failed", "--json")
    return [job["id"] for job in json.loads(done.stdout)["items"] if job["run"] == run]


def test_redrive_by_ids(running: Installation) -> None:
    (job_id,) = submit_failing(running, 1, "one")
    done = running.run("redrive", job_id)
    assert (done.returncode, done.stdout) == (0, f"{job_id} run 2\n")
    assert running.run("status", job_id, "--watch").returncode == 1
    shown = running.run("status", job_id, "--json")
    assert (json.loads(shown.stdout)["run"], json.loads(shown.stdout)["reason"]) == (2, "error")
    unknown = running.run("redrive", "01890a5d-ac96-774b-bcce-b302099a8057")
    assert (unknown.returncode, unknown.stderr.startswith("jobtape: there is no job")) == (1, True)


def test_workers_lists_those_of_jobs_and_of_builtin_jobs(running: Installation) -> None:
    def listed() -> list[str]:
        done = running.run("workers")
        assert (done.returncode, done.stderr) == (0, "")
        return sorted(line.split()[5] for line in done.stdout.splitlines()[1:] if "alive" in line)

    until(lambda: listed() == ["default", "jobtape", "jobtape-webhooks"], "all workers are listed")


def test_redrive_by_filter(running: Installation) -> None:
    found = submit_failing(running, 3, "many")
    (group,) = {json.loads(running.run("status", job_id, "--json").stdout)["failure"] for job_id in found}
    listed = running.run("failures")
    assert (listed.returncode, group in listed.stdout) == (0, True)
    assert set(found) <= {line.split()[0] for line in running.run("list", "--failure", group).stdout.splitlines()}
    assert "submitted=" in running.run("stats").stdout
    assert running.run("redrive", "--failure", group, "--dry-run").stdout.split()[:3] == found[::-1]
    dry = running.run("redrive", "--label", "kind=many", "--reason", "error", "--dry-run")
    assert (dry.returncode, dry.stdout.split()) == (0, found[::-1])
    assert dry.stderr == "3 jobs match; nothing was changed\n"
    unconfirmed = running.run("redrive", "--label", "kind=many")
    assert (unconfirmed.returncode, "--yes" in unconfirmed.stderr) == (2, True)
    done = running.run("redrive", "--label", "kind=many", "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["result"]) == (0, {"matched": 3, "accepted": 3, "already": 0})
    until(lambda: failed_ids(running, "many", run=2) == found[::-1], "the jobs have failed again")


def test_cancel_by_filter_and_search(running: Installation) -> None:
    url = running.env["JOBTAPE_URL"]
    orders = [{"type": "boom", "payload": {"text": text}, "delay": 3600} for text in ("here", "here", "there")]
    ids = [httpx.post(f"{url}/jobs", json=order, trust_env=False).json()["id"] for order in orders]
    found = running.run("list", "--payload", "text=here", "--json")
    assert [job["id"] for job in json.loads(found.stdout)["items"]] == ids[1::-1]
    dry = running.run("cancel", "--payload", "text=here", "--dry-run", "--json")
    assert json.loads(dry.stdout) == {"matched": 2, "more": False, "ids": ids[1::-1]}
    done = running.run("cancel", "--payload", "text=here", "--yes")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"matched": 2, "accepted": 2, "already": 0})
    states = [json.loads(running.run("status", job_id, "--json").stdout)["state"] for job_id in ids]
    assert states == ["cancelled", "cancelled", "scheduled"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((), "give ids of jobs, or a filter"),
        (("--payload", "red", "--yes"), "path=value"),
        (("01890a5d-ac96-774b-bcce-b302099a8057", "--type", "boom"), "not both"),
        (("01890a5d-ac96-774b-bcce-b302099a8057", "--dry-run"), "--dry-run works only with filters"),
        (("--label", "red", "--yes"), "name=value"),
    ],
)
def test_redrive_refuses_wrong_use(installation: Installation, call: tuple[str, ...], message: str) -> None:
    done = installation.run("redrive", *call)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_dead_lists_and_shows_messages_that_are_not_jobs(
    running: Installation, broker_url: str, topology: Topology
) -> None:
    async def put() -> None:
        connection = await aio_pika.connect(broker_url)
        async with connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(
                aio_pika.Message(b"\x1b[2Jnonsense"), topology.work_queue("default").name
            )

    anyio.run(put)
    until(lambda: "not JSON" in running.run("dead", "list").stdout, "the message is in the list")
    page = json.loads(running.run("dead", "list", "--json").stdout)
    number = str(page["items"][0]["id"])
    shown = running.run("dead", "show", number)
    assert (shown.returncode, shown.stdout) == (0, "\\x1b[2Jnonsense\n")
    assert "not JSON" in shown.stderr
    assert json.loads(running.run("dead", "show", number, "--json").stdout)["text"] == "\x1b[2Jnonsense"
    assert running.run("dead", "show", "99").returncode == 1


def doctor(installation: Installation, **variables: str) -> tuple[int, dict[str, Any]]:
    done = installation.run("doctor", "--json", **variables)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["healthy"] == (done.returncode == 0)
    return done.returncode, report


def wrong(report: dict[str, Any]) -> str:
    assert all(item["todo"] for item in report["findings"] if item["level"] == "wrong")
    return "\n".join(item["what"] for item in report["findings"] if item["level"] == "wrong")


def test_doctor_of_healthy_installation_exits_0(running: Installation) -> None:
    code, report = doctor(running)
    assert code == 0, wrong(report)
    text = "\n".join(item["what"] for item in report["findings"])
    for words in (
        "RabbitMQ",
        "the queue default has 1 consumers",
        "has folded the tape",
        "behind the tape",
        "gates, and no job",
    ):
        assert words in text, text
    assert running.run("doctor").stdout.splitlines()[-1] == "no problem"


def test_doctor_names_faults(running: Installation, broker_url: str, topology: Topology) -> None:
    running.submit("gate", {"path": "/nowhere"})
    code, report = doctor(running)
    assert code == 1
    assert "no worker serves the queue gates, and 1 jobs wait" in wrong(report)

    async def delete() -> None:
        connection = await aio_pika.connect(broker_url)
        async with connection:
            await (await connection.channel()).queue_delete(topology.work_queue("gates").name)

    anyio.run(delete)
    assert "the work queue gates is missing" in wrong(doctor(running)[1])
    short = wrong(doctor(running, JOBTAPE_RESCUE_AFTER="60", JOBTAPE_ACK_TIMEOUT="100")[1])
    assert "JOBTAPE_RESCUE_AFTER (60 s) is not more than JOBTAPE_ACK_TIMEOUT" in short
    assert "the job type add may run" in short


def test_doctor_without_broker_and_database(installation: Installation, tmp_path: Path) -> None:
    code, report = doctor(installation)
    assert code == 1
    assert {item["part"] for item in report["findings"] if item["level"] == "wrong"} == {"broker", "view"}
    assert "secret" not in json.dumps(report)
    lines = installation.run("doctor").stdout.splitlines()
    assert lines[-1] == "2 problems"
