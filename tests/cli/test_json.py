"""Runs each command that prints data with ``--json``: one JSON document on stdout, with lists as ``items``."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import typer.main
from cryptography.fernet import Fernet

from jobtape.cli.main import app
from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from jobtape.view.subscribers.positions import SUBSCRIPTION
from tests.cli.installation import Installation
from tests.cli.programs import until

JOBS = """
from jobtape import job

@job("strict", ordering_key="key", on_failure="hold")
def strict(key: str) -> None:
    raise ValueError("no")
"""
PARTS = {"up", "api", "worker", "projector"}
"""They run until they are stopped, and print logs."""
LINES = {"watch"}
"""Prints a JSON document on each line, until it is stopped."""
ELSEWHERE = {"import", "outbox", "destroy"}
"""They need an empty installation, a database of a user, and an installation without workers: their own tests use
``--json``."""
LISTS = {"list", "limits", "workers", "failures"}
"""The last words of commands that print a list."""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name, such as ``schedules list``."""
    for name, command in typer.main.get_group(app).commands.items():
        if hasattr(command, "commands"):
            for inner, each in command.commands.items():
                yield f"{name} {inner}", each
        else:
            yield name, command


async def publish_no_job(url: str, topology: Topology) -> None:
    """Publish a message that is no job to the work queue ``default``, and declare a queue of a user."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"no job"), topology.work_queue("default").name)
        await channel.declare_queue(f"{topology.namespace}.sub.audit", durable=True)


def test_each_command_that_prints_data_has_json() -> None:
    without = {name for name, each in commands() if not any("--json" in option.opts for option in each.params)}
    assert without == PARTS


def test_each_command_prints_one_json_document(broker_installation: Installation) -> None:
    here = broker_installation
    (here.folder / "more_jobs.py").write_text(JOBS)
    here.env |= {"JOBTAPE_JOBS": "jobs_here,more_jobs", "JOBTAPE_SECRET_KEYS": Fernet.generate_key().decode()}
    here.env["JOBTAPE_API_KEY"] = "a-key-for-tests"  # without one there are no keys to create
    printed: dict[str, Any] = {}

    def run(command: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        done = here.run(*command.split(), *arguments, "--json")
        assert done.returncode in codes, f"{command}: {done.stderr}"
        printed[command] = json.loads(done.stdout)
        return printed[command]

    def state(job: str) -> Any:
        return json.loads(here.run("status", job, "--json").stdout)["state"]

    run("new", "my-shop")
    run("broker users")
    run("init")
    here.up()
    asyncio.run(publish_no_job(here.env["RABBITMQ_URL"], Topology(here.env["JOBTAPE_NAMESPACE"])))

    job = run("submit", "add", '{"x": 1, "y": 2}', "--wait")["id"]
    for command in ("status", "events"):
        run(command, job)
    failed = run("submit", "strict", '{"key": "a"}', "--wait", codes=(1,))["id"]
    run("release", failed)
    run("redrive", failed)
    until(lambda: state(failed) == "failed", "it fails again")
    later = run("submit", "add", '{"x": 1, "y": 2}', "--delay", "3600")["id"]
    run("signal", later, "approved")
    run("cancel", later)

    for command in ("list", "failures", "stats", "workers", "top"):
        run(command)
    run("pause", "--queue", "gates")
    run("resume", "--queue", "gates")
    run("limit", "sweep", "2")
    run("limits")

    run("schedules sync")
    run("schedules put", "mine", "add", '{"x": 1, "y": 2}', "--every", "3600")
    for command in ("pause", "resume", "trigger", "ticks"):
        run(f"schedules {command}", "mine")
    run("schedules backfill", "mine", "--since", (datetime.now(UTC) - timedelta(hours=1)).isoformat())
    run("schedules list")
    run("schedules delete", "mine")

    flow = {"nodes": {"one": {"type": "add", "payload": {"x": 1, "y": 2}}}}
    made = run("flows submit", json.dumps(flow), "--wait")["id"]
    run("flows nodes", made)
    run("flows fork", made, "--from", "one")

    hook = run("webhooks create", "https://example.org/hook")["id"]
    for command in ("disable", "enable", "rotate", "test"):
        run(f"webhooks {command}", hook)
    run("webhooks replay", hook, "--after", "0")
    run("webhooks list")
    run("webhooks reencrypt")
    run("webhooks delete", hook)

    key = run("keys create", "me", "--scope", "read")["id"]
    run("keys rotate", key)
    run("keys list")
    run("keys revoke", key)

    until(lambda: json.loads(here.run("dead", "list", "--json").stdout)["items"], "the message that is no job is kept")
    run("dead show", str(run("dead list")["items"][0]["id"]))
    with closing(Store(here.env["DATABASE_URL"])) as store:
        store.positions.begin(f"{SUBSCRIPTION}audit", 0)
    run("subscriptions list", "audit")
    run("subscriptions remove", "audit")
    run("doctor", codes=(0, 1))  # what it finds is not the subject here

    asyncio.run(publish_no_job(here.env["RABBITMQ_URL"], Topology(here.env["JOBTAPE_NAMESPACE"])))
    run("rebuild", "--dry-run")
    run("replay", f"{here.env['JOBTAPE_NAMESPACE']}.sub.audit")
    run("shadow", "--type", "add")
    run("simulate", "--limits", "sweep=1")
    run("export", str(here.folder / "tape.ndjson.gz"))

    assert {name for name, _ in commands()} - PARTS - LINES - ELSEWHERE == set(printed)
    for name, document in printed.items():
        assert isinstance(document, dict), name
        if name.split()[-1] in LISTS:
            assert isinstance(document["items"], list), name
