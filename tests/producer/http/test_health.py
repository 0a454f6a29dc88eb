"""Readiness names the part that is not ready, the reason, and what to do."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobtape.settings import Settings
from jobtape.view.store import Gap, Store
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, settings_for
from tests.waiting import eventually, within

pytestmark = pytest.mark.anyio


async def readiness(served: Api, status: int) -> dict[str, Any]:
    with within(2):
        answer = await served.client.get("/health/ready")
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert list(body["parts"]) == ["broker", "tape", "view", "projector"]
    assert body["ready"] == all(part["ready"] for part in body["parts"].values()) == (status == 200)
    for part in body["parts"].values():
        assert part["ready"] == (part["reason"] is None)
    return body


async def reason(served: Api, part: str) -> str:
    text: str = (await readiness(served, 503))["parts"][part]["reason"]
    return text


async def test_liveness_without_broker_and_database(settings: Settings) -> None:
    away = settings.model_copy(update={"rabbitmq_url": "amqp://localhost:1/", "database_url": "sqlite:////none/none"})
    async with api(away, add, ready=False) as served:
        assert (await served.client.get("/health/live")).json() == {"live": True}
        body = await readiness(served, 503)
        assert not any(part["ready"] for part in body["parts"].values())


async def test_ready_with_all_parts(projected: Api, rig: Rig) -> None:

    async def known() -> dict[str, Any] | None:
        default: dict[str, Any] = (await readiness(projected, 200))["workers"]["default"]
        return default if default["consumers"] is not None else None  # the broker did not answer in time

    default = await eventually(known)
    assert default["consumers"] == 0
    assert "no worker" in default["warning"]
    async with rig.worker(add, queues=("default",)):

        async def taken() -> dict[str, Any] | None:
            workers: dict[str, Any] = (await readiness(projected, 200))["workers"]
            return workers if workers["default"]["consumers"] == 1 else None

        workers = await eventually(taken)
        assert workers["default"] == {"consumers": 1, "waiting": 0, "warning": None}
        assert workers["orders"]["consumers"] == 0


async def test_readiness_without_projector(settings: Settings, rig: Rig, view: Store) -> None:
    async with api(settings, add) as served:
        assert "no projector has been started" in await reason(served, "projector")
        view.create_checkpoint()
        assert "no projector is active" in await reason(served, "projector")
        assert view.take_lease("test", 60)
        await readiness(served, 200)
        view.report_gap("test", Gap("tape-truncated", "something is missing"))
        assert "tape-truncated: something is missing" in await reason(served, "projector")


async def test_readiness_warns_of_relay(settings: Settings, rig: Rig, view: Store) -> None:
    """A stalled relay is a warning: jobs are still accepted."""
    async with api(settings, add) as served:
        view.expect_fresh_tape()
        view.create_checkpoint()
        assert view.take_lease("test", 60)
        well = (await readiness(served, 200))["relay"]
        assert well == {"mode": "final", "behind": 0, "warning": None}
        assert view.relay.move("test", 1, 0, 0, "relay-stalled: a test")
        assert (await readiness(served, 200))["relay"]["warning"] == "relay-stalled: a test"
        assert view.relay.forget("test")
        assert (await readiness(served, 200))["relay"] == {"mode": None, "behind": None, "warning": None}


async def test_readiness_without_tape(settings: Settings, view: Store) -> None:
    async with api(settings, add, ready=False) as served:
        await eventually(lambda: served.producer.watch.broker_fault is None)
        assert "jobtape init" in await reason(served, "tape")


async def test_readiness_warns_of_missing_queue(projected: Api, rig: Rig) -> None:
    channel = await (await rig.link.connection()).channel()
    await channel.queue_delete(rig.topology.work_queue("orders").name)

    async def missing() -> bool:
        return "missing" in (await readiness(projected, 200))["workers"]["orders"]["warning"]

    await eventually(missing)


async def test_readiness_without_tables(served: Api, rig: Rig, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "empty.db").touch()
    async with api(settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/empty.db"}), add) as empty:
        assert "jobtape init" in await reason(empty, "view")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_readiness_with_blocked_database(rig: Rig, store: Store, broker_url: str, database_url: str) -> None:
    """Health responds in time while the database blocks every read, and recovers afterwards."""
    store.create_checkpoint()
    assert store.take_lease("test", 600)
    async with api(settings_for(broker_url, rig.topology, database_url), add) as served:
        await readiness(served, 200)
        with psycopg.connect(database_url) as locking:
            locking.execute("LOCK TABLE checkpoint")
            for _ in range(4):
                assert "did not answer" in await reason(served, "view")
            metrics = await served.client.get("/metrics")
            assert 'jobtape_up{part="view"} 0.0' in metrics.text
            assert 'jobtape_up{part="broker"} 1.0' in metrics.text
            await served.submit()

        async def ready() -> bool:
            return (await served.client.get("/health/ready")).status_code == 200

        await eventually(ready)
