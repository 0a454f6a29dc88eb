"""``jobtape rebuild``, ``replay`` and ``shadow``, and ``POST /replays``: from the command to what became of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from jobtape.broker.declare import remove_namespace
from tests.cli.installation import Installation, installation_in
from tests.namespaces import environment_for, some_topology


@dataclass
class Past:
    """A running installation in which something has happened: the ids of its jobs, by type."""

    installation: Installation
    namespace: str
    add: list[str]
    boom: str
    pid: str

    def builtin(self, *arguments: str) -> dict[str, Any]:
        """The job at its end, as the command prints it, when all went well."""
        done = self.installation.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        job: dict[str, Any] = json.loads(done.stdout)
        assert job["state"] == "succeeded"
        return job

    def watched(self, job_id: str) -> dict[str, Any]:
        """A job at its end, however it ended."""
        job: dict[str, Any] = json.loads(self.installation.run("status", job_id, "--watch", "--json").stdout)
        return job

    def post(self, order: dict[str, Any]) -> httpx.Response:
        """What ``POST /replays`` answers."""
        return httpx.post(f"{self.installation.env['JOBTAPE_URL']}/replays", json=order, trust_env=False)

    def events(self) -> dict[str, list[str]]:
        """The ids of the events of each job of ``add``: the tape, as far as they are concerned."""
        jobs = f"{self.installation.env['JOBTAPE_URL']}/jobs"
        answers = {each: httpx.get(f"{jobs}/{each}/events", trust_env=False).json() for each in self.add}
        return {each: [event["id"] for event in answer["items"]] for each, answer in answers.items()}

    def successes(self) -> list[str]:
        """The ids of the events with which the jobs of ``add`` ended, in the order of the tape."""
        return [ids[-1] for ids in self.events().values()]


@pytest.fixture(scope="module")
def past(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """One for all tests: each start of all the parts takes its time."""
    topology = some_topology("default", "gates")
    installation = installation_in(tmp_path_factory.mktemp("again"), **environment_for(broker_url, topology))
    try:
        installation.up()
        add = [installation.submit("add", {"x": n, "y": n}, "--wait", "--json") for n in range(3)]
        pid = json.loads(installation.submit("pid", {}, "--wait", "--json"))["id"]
        boom = json.loads(installation.run("submit", "boom", '{"text": "no"}', "--wait", "--json").stdout)["id"]
        yield Past(installation, topology.namespace, [json.loads(job)["id"] for job in add], boom, pid)
    finally:
        installation.close()
        anyio.run(remove_namespace, broker_url, topology)


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    """As somebody else has one."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    yield connection.channel()
    connection.close()


@pytest.fixture
def queue(channel: BlockingChannel) -> Iterator[str]:
    """A queue of somebody's own."""
    name = f"test-{uuid4().hex}"
    channel.queue_declare(name, durable=True)
    yield name
    channel.queue_delete(name)


def taken(channel: BlockingChannel, queue: str) -> list[tuple[str, str]]:
    """What is on the queue: of which event each message is, and of which replay. It is empty then."""
    found: list[tuple[str, str]] = []
    while True:
        method, properties, _ = channel.basic_get(queue, auto_ack=True)
        if method is None or properties is None:
            return found
        assert "CC" not in properties.headers
        found.append((properties.message_id, properties.headers["replayed"]))


@pytest.mark.parametrize(
    ("options", "switched"),
    [(["--dry-run"], False), (["--from", "stream", "--dry-run"], False), ([], True), (["--from", "stream"], True)],
    ids=["archive, dry", "stream, dry", "archive", "stream"],
)
def test_rebuild_finds_no_difference(past: Past, options: list[str], switched: bool) -> None:
    before = past.events()
    result = past.builtin("rebuild", *options)["result"]
    assert result["switched"] == switched
    assert (result["changed"], result["missing"], result["added"]) == (0, 0, 0), result["examples"]
    assert result["compared"] >= 5
    assert past.events() == before
    assert past.installation.submit("add", {"x": 20, "y": 22}, "--wait", "--label", "not=counted") == "42"


def test_shadow_names_the_job_that_ends_differently(past: Past) -> None:
    both = ["--type", "pid", "--type", "boom", "--state", "succeeded", "--state", "failed"]
    result = past.builtin("shadow", *both)["result"]
    assert (result["jobs"], result["same"], result["different"]) == (2, 1, [past.pid])
    assert past.builtin("shadow", "--type", "add", "--limit", "2")["result"]["same"] == 2


def test_replay_sends_selected_events_and_runs_nothing(past: Past, channel: BlockingChannel, queue: str) -> None:
    before = past.events()
    chosen = ["--event", "succeeded", "--type", "add", "--rate", "100"]
    job = past.builtin("replay", queue, *chosen)
    messages = taken(channel, queue)
    assert job["result"] == {"events": len(messages)}
    assert [event for event, _ in messages if event in past.successes()] == past.successes()
    assert {mark for _, mark in messages} == {f"{job['id']}/1"}
    assert past.events() == before


def test_replay_over_rest(past: Past, channel: BlockingChannel, queue: str) -> None:
    answer = past.post({"queue": queue, "since": "first", "events": ["succeeded"], "job": past.add[1]})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    assert past.watched(job_id)["result"] == {"events": 1}
    assert taken(channel, queue) == [(past.successes()[1], f"{job_id}/1")]


def test_detached_replay_prints_only_the_id(past: Past, channel: BlockingChannel, queue: str) -> None:
    done = past.installation.run("replay", queue, "--job", past.boom, "--event", "failed", "--detach")
    assert done.returncode == 0, done.stderr
    job = past.watched(done.stdout.strip())
    assert (job["state"], job["result"]) == ("succeeded", {"events": 1})
    assert len(taken(channel, queue)) == 1


def test_replay_to_missing_queue_fails_until_redrive(past: Past, channel: BlockingChannel) -> None:
    name = f"test-{uuid4().hex}"
    done = past.installation.run("replay", name, "--job", past.add[0], "--event", "succeeded", "--json")
    assert done.returncode == 1
    job = json.loads(done.stdout)
    assert "declare it, then redrive" in job["error"]["message"]
    channel.queue_declare(name, durable=True)
    try:
        for run in (1, 2):  # first it goes on with what run 1 had begun, then it does all of it again
            assert past.installation.run("redrive", job["id"]).returncode == 0
            ended: dict[str, Any] = {"run": run}
            while ended["run"] == run:  # the view may not have its redrive yet
                ended = past.watched(job["id"])
            assert (ended["run"], ended["result"]) == (run + 1, {"events": 1})
        first, second = taken(channel, name)
        assert first == (past.successes()[0], f"{job['id']}/1")
        assert second == (past.successes()[0], f"{job['id']}/3")
    finally:
        channel.queue_delete(name)


def test_replay_refuses_our_own_queues(past: Past) -> None:
    own = f"{past.namespace}.run.default"
    answer = past.post({"queue": own})
    assert answer.status_code == 422
    assert "one of Jobtape's own queues" in answer.text
    done = past.installation.run("replay", own)
    assert done.returncode == 1
    assert "one of Jobtape's own queues" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "audit", "--rate", "0"],
        ["replay", "audit", "--since", "5", "--until", "0"],
        ["shadow", "--limit", "0"],
    ],
    ids=" ".join,
)
def test_option_of_zero_is_passed_and_refused(past: Past, arguments: list[str]) -> None:
    done = past.installation.run(*arguments)
    assert done.returncode != 0
    assert arguments[-2].lstrip("-") in done.stderr


def test_replay_of_empty_range_sends_nothing(past: Past, channel: BlockingChannel, queue: str) -> None:
    assert past.builtin("replay", queue, "--until", "0")["result"] == {"events": 0}
    assert taken(channel, queue) == []
