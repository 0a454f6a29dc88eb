"""Tests that readiness, metrics and doctor report a fold that keeps failing, until it continues."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.view import examine_view
from jobtape.consumer.projector import projector as projecting
from jobtape.producer.monitoring import health
from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig
from tests.databases import OwnDatabase, SessionPostgres, own_database
from tests.poolers import pooled_database
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

TIMES = int(os.environ.get("JOBTAPE_TEST_TIMES", "1"))
REFUSE = {
    "sqlite": ["CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'refused'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}
ALLOW = {"sqlite": ["DROP TRIGGER refuse"], "postgresql": ["DROP FUNCTION refuse CASCADE"]}


@pytest.fixture
def topology(make_topology: MakeTopology) -> Topology:
    return make_topology("default", "orders")


@asynccontextmanager
async def running(rig: Rig, url: str) -> AsyncIterator[Api]:
    """Run a projector and an API with the database."""
    store = Store(url, timeout=2.0)
    async with rig.projector(store, lease=1.0), api(settings_for(rig.url, rig.topology, url), add) as served:
        yield served
    store.close()


async def is_ready(served: Api) -> bool:
    return (await served.client.get("/health/ready")).status_code == 200


async def reason(served: Api) -> str:
    """Return why the projector is not ready."""

    async def found() -> Any:
        return (await served.client.get("/health/ready")).json()["parts"]["projector"]["reason"]

    return str(await eventually(found, what="readiness contains a reason"))


def change(store: Store, *statements: str) -> None:
    with store._database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


def findings(store: Store) -> str:
    found = Findings()
    examine_view(found, store)
    return " ".join(item.what for item in found.items if item.level == "wrong")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("a row is refused", "refused"),
        ("a table is missing", "lacks a table or column"),
        ("the code fails", "ZeroDivisionError"),
    ],
)
async def test_failing_fold_is_reported_until_it_continues(
    rig: Rig, store: Store, database_url: str, broken: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise ZeroDivisionError("€")

    async with running(rig, database_url) as served:
        for _ in range(TIMES):
            await eventually(lambda: is_ready(served))
            if broken == "a row is refused":
                change(store, *(each.format(table="history") for each in REFUSE[store.dialect]))
            elif broken == "a table is missing":
                change(store, "ALTER TABLE tally RENAME TO old_tally")
            else:
                monkeypatch.setattr(projecting, "fold_batch", fail)
            job = await served.submit()
            why = await reason(served)
            assert "nothing is folded after cursor" in why
            assert expected in why
            assert 'jobtape_up{part="projector"} 0.0' in (await served.client.get("/metrics")).text
            assert expected in findings(store)
            if broken == "a row is refused":
                change(store, *ALLOW[store.dialect])
            elif broken == "a table is missing":
                change(store, "ALTER TABLE old_tally RENAME TO tally")
            else:
                monkeypatch.undo()
            await eventually(lambda: is_ready(served))
            assert findings(store) == ""
            assert (await served.client.get(f"/jobs/{job['id']}")).status_code == 200


async def test_checkpoint_that_does_not_move_is_reported(
    rig: Rig, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STANDS_STILL", 0.5)
    async with running(rig, database_url) as served:
        for _ in range(TIMES):
            await eventually(lambda: is_ready(served))
            change(store, "ALTER TABLE tally RENAME TO old_tally", "ALTER TABLE tasks RENAME TO old_tasks")
            change(store, "CREATE VIEW tasks AS SELECT * FROM old_tasks WHERE key = 'none'")
            change(store, *_refuse_task_inserts(store.dialect))
            await served.submit()
            assert "nothing has been folded after cursor" in await reason(served)
            assert 'jobtape_up{part="projector"} 0.0' in (await served.client.get("/metrics")).text
            change(
                store,
                "DROP VIEW tasks",
                "ALTER TABLE old_tasks RENAME TO tasks",
                "ALTER TABLE old_tally RENAME TO tally",
            )
            await eventually(lambda: is_ready(served))


def _refuse_task_inserts(dialect: str) -> list[str]:
    # PostgreSQL allows writes to a simple view.
    if dialect == "sqlite":
        return []
    return ["CREATE RULE no_inserts AS ON INSERT TO tasks DO INSTEAD SELECT 1 / 0"]


@pytest.fixture
def database(postgres: SessionPostgres) -> Iterator[OwnDatabase]:
    with own_database(postgres.url) as made:
        yield made


async def test_fold_and_keyed_submissions_continue_after_a_failover(rig: Rig, database: OwnDatabase) -> None:
    """All parts end the sessions that began while the database was read-only."""
    async with running(rig, database.url) as served:
        for n in range(TIMES + 1):
            await eventually(lambda: is_ready(served))
            database.administer("ALTER DATABASE {name} SET default_transaction_read_only = on")
            database.end_sessions()
            refused = await _submit(served, f"key-{n}")
            assert refused.status_code == 503
            job = await served.submit()
            assert await reason(served)
            database.administer("ALTER DATABASE {name} RESET default_transaction_read_only")
            accepted = await _submit(served, f"key-{n}")
            assert accepted.status_code in (200, 202), accepted.text
            for job_id in (job["id"], accepted.json()["id"]):
                assert (await served.client.get(f"/jobs/{job_id}")).status_code == 200
            await eventually(lambda: is_ready(served))


async def test_all_parts_work_behind_a_pooler_in_transaction_mode(rig: Rig, postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "transaction") as (url, _):
        async with running(rig, url) as served, rig.worker(add, queues=("default",)):
            await eventually(lambda: is_ready(served))
            for n in range(20 * TIMES):
                accepted = await _submit(served, f"key-{n}")
                assert accepted.status_code in (200, 202), accepted.text
                job_id = accepted.json()["id"]
                for path in (f"/jobs/{job_id}", "/jobs", f"/jobs/{job_id}/events", "/metrics", "/health/ready"):
                    answer = await served.client.get(path)
                    assert answer.status_code == 200, answer.text


async def _submit(served: Api, key: str) -> httpx.Response:
    body: dict[str, Any] = {"type": "add", "payload": {"x": 1}}
    return await served.client.post("/jobs", json=body, headers={"Idempotency-Key": key})
