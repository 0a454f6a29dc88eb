"""Tests export and import: an import gives the same view except for its cursors, and runs no job."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobtape.cli.tape.export import export
from jobtape.schemas.messages.tape_file import TapeHeader, read_header, read_lines
from jobtape.view.store import JobQuery, RawMessage, Store
from tests.cli.installation import Installation, installation_in
from tests.cli.programs import until
from tests.conftest import MakeTopology
from tests.namespaces import environment_for
from tests.view.samples import begin, record, submitted, succeeded

POSITION_FIELDS = ("cursor", "imported", "rank", "has_slots")
"""Where the tape has the job, and what follows from that: an imported job has no slots here."""


@pytest.fixture
def both(tmp_path: Path, broker_url: str, make_topology: MakeTopology) -> Iterator[tuple[Installation, Installation]]:
    """Two installations on one broker."""
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        topology = make_topology("default", "gates")
        made.append(installation_in(tmp_path / name, **environment_for(broker_url, topology)))
    yield made[0], made[1]
    for installation in made:
        installation.close()


def test_export_and_import_give_the_same_view(both: tuple[Installation, Installation], tmp_path: Path) -> None:
    one, other = both
    one.up()
    assert one.submit("add", {"x": 1, "y": 2}, "--wait") == "3"
    assert one.run("submit", "boom", '{"text": "no"}', "--wait").returncode == 1
    scheduled = submit_scheduled(one)
    flow, fork, waiting, gate = submit_flows(one)
    path = tmp_path / "tape.ndjson.gz"
    done = one.run("export", str(path))
    assert done.returncode == 0, done.stderr
    again = one.run("export", str(path))
    assert again.returncode == 2
    assert "exists already" in again.stderr

    other.up()
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-20]))
    refused = other.run("import", str(torn))
    assert refused.returncode == 1
    assert "export it again" in refused.stderr
    assert view(other) == {}
    for _ in range(2):  # the second import finds everything imported
        done = other.run("import", str(path), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["file"] == str(path)
        assert differences(view(other), view(one)) == []

    for each in (flow, fork, waiting):
        assert other.run("flows", "nodes", each).stdout == one.run("flows", "nodes", each).stdout != ""
    gate.write_text("opened")  # for the first installation
    assert other.run("redrive", waiting).returncode == 0
    gate.write_text("opened")
    until(lambda: view(other)[waiting]["state"] == "succeeded", "the imported flow goes on")
    ran = {job["node"]: (job["run"], job["result"]) for job in view(other).values() if job["flow"] == waiting}
    assert ran == {"first": (1, 3), "wait": (2, "opened"), "after": (1, 4)}

    assert other.run("redrive", scheduled).returncode == 0
    until(lambda: view(other)[scheduled]["state"] == "succeeded", "the imported job has run")
    refused = one.run("import", str(path))
    assert refused.returncode == 1
    assert "only into an empty one" in refused.stderr


def differences(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what differs between two views: type and node of a job, the field, and both values."""
    assert one.keys() == other.keys()
    return [
        (job["type"], job["node"], name, value, other[job_id][name])
        for job_id, job in one.items()
        for name, value in job.items()
        if value != other[job_id][name]
    ]


def submit_scheduled(installation: Installation) -> str:
    """Submit a job that is due in half an hour, wait until the view has it, and return its id."""
    order = {"type": "add", "payload": {"x": 5, "y": 6}, "delay": 1800}
    job_id = str(httpx.post(f"{installation.env['JOBTAPE_URL']}/jobs", json=order, trust_env=False).json()["id"])
    until(lambda: job_id in view(installation), "the job is in the view")
    return job_id


def submit_flows(installation: Installation) -> tuple[str, str, str, Path]:
    """Submit a flow with a flow in it, a fork of it, and a flow that waits until the path exists; return their ids."""
    add = {"type": "add", "payload": {"x": 1, "y": 2}}
    nested = {"a": {"type": "add", "payload": {"x": {"$input": "/x"}, "y": 1}}}
    inner = {"input": {"x": {"$from": "one"}}, "nodes": nested}
    last = {"type": "add", "payload": {"x": {"$from": "inner", "path": "/a"}, "y": 0}}
    nodes = {"one": add, "inner": {"type": "jobtape.flow", "payload": inner}, "last": last}
    flow = installation.submit("jobtape.flow", {"nodes": nodes})
    until(lambda: view(installation).get(flow, {}).get("result") == {"last": 4}, "the flow has ended")
    fork = installation.run("flows", "fork", flow, "--from", "last").stdout.strip()
    until(lambda: view(installation).get(fork, {}).get("result") == {"last": 4}, "the fork has ended")
    gate = installation.gate()
    wait = {"type": "gate", "payload": {"path": str(gate)}, "after": ["first"]}
    after = {"type": "add", "payload": {"x": {"$from": "first"}, "y": 1}, "after": ["wait"]}
    waiting = installation.submit("jobtape.flow", {"nodes": {"first": add, "wait": wait, "after": after}})

    def waits() -> bool:
        found = view(installation)
        reported = [job["progress_n"] for job in found.values() if job["id"] == waiting or job["node"] == "wait"]
        return reported == [1, 1]

    until(waits, "the flow waits, and has said so")
    return flow, fork, waiting, gate


def view(installation: Installation) -> dict[str, dict[str, Any]]:
    """Return the jobs by id, without their cursors."""
    store = Store(installation.env["DATABASE_URL"])
    found = store.list_jobs(JobQuery(limit=1000))
    store.close()
    return {
        job.id: {name: value for name, value in asdict(job).items() if name not in POSITION_FIELDS} for job in found
    }


def test_import_refuses_other_files(installation: Installation, tmp_path: Path) -> None:
    for name, content in (("plain", b"{}"), ("other", gzip.compress(json.dumps({"format": "x"}).encode()))):
        (tmp_path / name).write_bytes(content)
        done = installation.run("import", str(tmp_path / name))
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("jobtape: ")
    assert installation.run("import", str(tmp_path / "nothing")).returncode == 2


def test_export_leaves_out_removed_jobs_completely(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention removes jobs between two pages."""
    begin(store)
    old, new = submitted(1), submitted(2)
    record(store, old, new, succeeded(old))
    archive = store.rebuilds.archive

    def archive_and_prune(after: int) -> list[RawMessage]:
        page = archive(after, 1)
        store.retention.prune("me", old.time + timedelta(days=1))
        return page

    monkeypatch.setattr(store.rebuilds, "archive", archive_and_prune)
    path = tmp_path / "tape.gz"
    assert export(store, path, TapeHeader("x", "ns", 0, store.committed.reach().head)) == 1
    assert list(tmp_path.glob("tape*")) == [path]
    with gzip.open(path) as file:
        assert read_header(next(file)).id == "x"
        assert [line.event and line.event["subject"] for line in read_lines(file)] == [new.subject]
