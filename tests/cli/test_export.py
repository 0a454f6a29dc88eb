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
from jobtape.schemas.tape_file import TapeHeader, read_header, read_lines
from jobtape.view.store import JobQuery, RawMessage, Store
from tests.cli.installation import Installation, installation_in
from tests.cli.programs import until
from tests.conftest import MakeTopology
from tests.namespaces import environment_for
from tests.view.samples import begin, record, submitted, succeeded

POSITION_FIELDS = ("cursor", "imported")


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
        done = other.run("import", str(path))
        assert done.returncode == 0, done.stderr
        assert view(other) == view(one)

    assert other.run("redrive", scheduled).returncode == 0
    until(lambda: view(other)[scheduled]["state"] == "succeeded", "the imported job has run")
    refused = one.run("import", str(path))
    assert refused.returncode == 1
    assert "only into an empty one" in refused.stderr


def submit_scheduled(installation: Installation) -> str:
    """Submit a job that is due in half an hour, wait until the view has it, and return its id."""
    order = {"type": "add", "payload": {"x": 5, "y": 6}, "delay": 1800}
    job_id = str(httpx.post(f"{installation.env['JOBTAPE_URL']}/jobs", json=order, trust_env=False).json()["id"])
    until(lambda: job_id in view(installation), "the job is in the view")
    return job_id


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
