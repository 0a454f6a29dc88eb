"""Tests ``jobtape rebuild``, ``replay`` and ``shadow``, and ``POST /replays``, up to their results."""

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
class History:
    """A running installation with finished jobs: the ids of its jobs, by type."""

    installation: Installation
    namespace: str
    add: list[str]
    boom: str
    pid: str

    def builtin(self, *arguments: str) -> dict[str, Any]:
        """Run a command that submits a built-in job, and return the job when it has succeeded."""
        done = self.installation.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        job: dict[str, Any] = json.loads(done.stdout)
        assert job["state"] == "succeeded"
        return job

    def watched(self, job_id: str) -> dict[str, Any]:
        """Wait until the job is final, and return it."""
        job: dict[str, Any] = json.loads(self.installation.run("status", job_id, "--watch", "--json").stdout)
        return job

    def post(self, order: dict[str, Any]) -> httpx.Response:
        """Send ``POST /replays``, and return the answer."""
        return httpx.post(f"{self.installation.env['JOBTAPE_URL']}/replays", json=order, trust_env=False)

    def events(self) -> dict[str, list[str]]:
        """Return the event ids of each job of ``add``, in the order of the tape."""
        jobs = f"{self.installation.env['JOBTAPE_URL']}/jobs"
        answers = {each: httpx.get(f"{jobs}/{each}/events", trust_env=False).json() for each in self.add}
        return {each: [event["id"] for event in answer["items"]] for each, answer in answers.items()}

    def successes(self) -> list[str]:
        """Return the ids of the outcomes of the jobs of ``add``, in the order of the tape."""
        return [ids[-1] for ids in self.events().values()]


@pytest.fixture(scope="module")
def history(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Run one installation for all tests of this module, because a start of all parts takes seconds."""
    topology = some_topology("default", "gates")
    installation = installation_in(tmp_path_factory.mktemp("history"), **environment_for(broker_url, topology))
    try:
        installation.up()
        add = [installation.submit("add", {"x": n, "y": n}, "--wait", "--json") for n in range(3)]
        pid = json.loads(installation.submit("pid", {}, "--wait", "--json"))["id"]
        boom = json.loads(installation.run("submit", "boom", '{"text": "no"}', "--wait", "--json").stdout)["id"]
        yield History(installation, topology.namespace, [json.loads(job)["id"] for job in add], boom, pid)
    finally:
        installation.close()
        anyio.run(remove_namespace, broker_url, topology)


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    """A channel of a connection that Jobtape does not use."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    yield connection.channel()
    connection.close()


@pytest.fixture
def queue(channel: BlockingChannel) -> Iterator[str]:
    """A queue that Jobtape did not declare."""
    name = f"test-{uuid4().hex}"
    channel.queue_declare(name, durable=True)
    yield name
    channel.queue_delete(name)


def drain(channel: BlockingChannel, queue: str) -> list[tuple[str, str]]:
    """Empty the queue, and return the event id and the replay's mark of each message."""
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
def test_rebuild_finds_no_difference(history: History, options: list[str], switched: bool) -> None:
    before = history.events()
    result = history.builtin("rebuild", *options)["result"]
    assert result["switched"] == switched
    assert (result["changed"], result["missing"], result["added"]) == (0, 0, 0), result["examples"]
    assert result["compared"] >= 5
    assert history.events() == before
    assert history.installation.submit("add", {"x": 20, "y": 22}, "--wait", "--label", "test=rebuild") == "42"


def test_shadow_names_job_with_different_result(history: History) -> None:
    filters = ["--type", "pid", "--type", "boom", "--state", "succeeded", "--state", "failed"]
    result = history.builtin("shadow", *filters)["result"]
    assert (result["jobs"], result["same"], result["different"]) == (2, 1, {history.pid: [0]})
    assert history.builtin("shadow", "--type", "add", "--limit", "2")["result"]["same"] == 2


def test_replay_sends_selected_events_and_runs_nothing(history: History, channel: BlockingChannel, queue: str) -> None:
    before = history.events()
    filters = ["--event", "succeeded", "--type", "add", "--rate", "100"]
    job = history.builtin("replay", queue, *filters)
    messages = drain(channel, queue)
    assert job["result"] == {"events": len(messages)}
    assert [event for event, _ in messages if event in history.successes()] == history.successes()
    assert {mark for _, mark in messages} == {f"{job['id']}/1"}
    assert history.events() == before


def test_replay_over_rest(history: History, channel: BlockingChannel, queue: str) -> None:
    answer = history.post({"queue": queue, "since": "first", "events": ["succeeded"], "job": history.add[1]})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    assert history.watched(job_id)["result"] == {"events": 1}
    assert drain(channel, queue) == [(history.successes()[1], f"{job_id}/1")]


def test_detached_replay_prints_only_the_id(history: History, channel: BlockingChannel, queue: str) -> None:
    done = history.installation.run("replay", queue, "--job", history.boom, "--event", "failed", "--detach")
    assert done.returncode == 0, done.stderr
    job = history.watched(done.stdout.strip())
    assert (job["state"], job["result"]) == ("succeeded", {"events": 1})
    assert len(drain(channel, queue)) == 1


def test_replay_to_missing_queue_fails_until_redrive(history: History, channel: BlockingChannel) -> None:
    name = f"test-{uuid4().hex}"
    done = history.installation.run("replay", name, "--job", history.add[0], "--event", "succeeded", "--json")
    assert done.returncode == 1
    job = json.loads(done.stdout)
    assert "declare it, then redrive" in job["error"]["message"]
    channel.queue_declare(name, durable=True)
    try:
        for run in (1, 2):  # run 2 continues what run 1 had begun, run 3 begins again
            assert history.installation.run("redrive", job["id"]).returncode == 0
            ended: dict[str, Any] = {"run": run}
            while ended["run"] == run:  # the view may not contain the redrive yet
                ended = history.watched(job["id"])
            assert (ended["run"], ended["result"]) == (run + 1, {"events": 1})
        first, second = drain(channel, name)
        assert first == (history.successes()[0], f"{job['id']}/1")
        assert second == (history.successes()[0], f"{job['id']}/3")
    finally:
        channel.queue_delete(name)


def test_replay_refuses_queues_of_jobtape(history: History) -> None:
    own = f"{history.namespace}.run.default"
    answer = history.post({"queue": own})
    assert answer.status_code == 422
    assert "one of Jobtape's own queues" in answer.text
    done = history.installation.run("replay", own)
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
def test_option_of_zero_is_passed_and_refused(history: History, arguments: list[str]) -> None:
    done = history.installation.run(*arguments)
    assert done.returncode != 0
    assert arguments[-2].lstrip("-") in done.stderr


def test_replay_of_empty_range_sends_nothing(history: History, channel: BlockingChannel, queue: str) -> None:
    assert history.builtin("replay", queue, "--until", "0")["result"] == {"events": 0}
    assert drain(channel, queue) == []
