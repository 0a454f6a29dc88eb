"""Tests ``jobtape init`` and ``destroy``."""

import json

from jobtape.view.store import Gap, Store
from tests.cli.installation import Installation


def test_init_creates_only_what_is_missing(broker_installation: Installation) -> None:
    first = broker_installation.run("init")
    assert first.returncode == 0, first.stderr
    assert "tables created or updated" in first.stdout
    assert f"tape {broker_installation.env['JOBTAPE_NAMESPACE']}.log: created" in first.stdout
    assert "work queues: default, gates" in first.stdout
    assert "checkpoint: created" in first.stdout

    again = broker_installation.run("init")
    assert again.returncode == 0
    assert again.stdout.count("exists already") == 3
    assert "created" not in again.stdout


def test_gap_is_accepted_once(broker_installation: Installation) -> None:
    broker_installation.run("init")
    view = Store(broker_installation.env["DATABASE_URL"])
    view.take_lease("a projector", 60)
    view.report_gap("a projector", Gap("tape-replaced", "offset 17 has another digest"))

    accepted = broker_installation.run("init", "--accept-gap")
    assert accepted.returncode == 0, accepted.stderr
    assert "gap: accepted (tape-replaced: offset 17 has another digest)" in accepted.stdout
    assert "in epoch 2" in accepted.stdout
    after = view.checkpoint()
    view.close()
    assert after is not None
    assert (after.epoch, after.gap) == (2, None)

    again = broker_installation.run("init", "--accept-gap")
    assert again.returncode == 0
    assert "nothing to accept" in again.stdout


def test_init_without_broker_is_one_line_without_password(installation: Installation) -> None:
    done = installation.run("init")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "name another one in RABBITMQ_URL" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_destroy_removes_what_init_has_created(broker_installation: Installation) -> None:
    here = broker_installation
    here.run("init")
    namespace = here.env["JOBTAPE_NAMESPACE"]
    asked = here.run("destroy", "--view")
    assert (asked.returncode, "give --yes" in asked.stderr) == (2, True)
    worker = here.start("worker")
    worker.line_with("taking jobs")
    refused = here.run("destroy", "--yes")
    assert refused.returncode == 1
    assert f"{namespace}.run.default" in refused.stderr and "--force" in refused.stderr
    worker.close()
    done = here.run("destroy", "--view", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    removed = json.loads(done.stdout)
    names = {each["name"] for each in removed["queues"]}
    assert {f"{namespace}.log", f"{namespace}.cancels", f"{namespace}.run.default", f"{namespace}.run.gates"} <= names
    assert list(here.folder.glob("view.db*")) == []
    again = here.run("init")
    assert f"tape {namespace}.log: created" in again.stdout
    assert "checkpoint: created" in again.stdout
