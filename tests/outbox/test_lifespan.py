"""An application forwards its outbox under ``jobtape.lifespan``, and shows what waits."""

from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

import jobtape
from jobtape import JobType
from tests.consumer.installation import Rig
from tests.faults.jobs import add, nap
from tests.outbox.user_database import UserDatabase, outbox
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def environment(rig: Rig, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings as environment variables."""
    monkeypatch.setenv("RABBITMQ_URL", rig.url)
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("JOBTAPE_NAMESPACE", rig.topology.namespace)


def shop(job_types: list[JobType], **more: Any) -> FastAPI:
    """An application with the API under ``/jobtape``."""
    app = FastAPI(lifespan=partial(jobtape.lifespan, job_types=job_types, **more))
    app.mount("/jobtape", jobtape.create_app())
    return app


async def metrics_of(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/jobtape/metrics")).text
    return {each.name: each.value for family in text_string_to_metric_families(text) for each in family.samples}


@pytest.mark.usefixtures("environment")
async def test_application_forwards_and_shows_what_waits(users: UserDatabase, rig: Rig) -> None:
    app = shop([add], outbox=users.async_engine)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30) as client,
    ):
        async with users.transaction("async session") as session:
            job = await add.submit_in(session, x=1, y=2)
            refused = await nap.submit_in(session, seconds=0.0)
        await eventually(lambda: rig.of(job.id))

        async def shown() -> bool:
            ready = (await client.get("/jobtape/health/ready")).json()
            return bool(ready["outbox"]["waiting"] == ready["outbox"]["refused"] == 1)

        await eventually(shown)
        ready = (await client.get("/jobtape/health/ready")).json()
        assert "`jobtape outbox --list` shows why" in ready["outbox"]["warning"]
        found = await metrics_of(client)
        assert (found["jobtape_outbox_depth"], found["jobtape_outbox_refused"]) == (1, 1)
        assert found["jobtape_outbox_oldest_seconds"] > 0
        with users.engine.begin() as connection:
            connection.execute(update(outbox).where(outbox.c.job_id == refused.id).values(error=None))
        outbox.drop(users.engine)
        ready = (await client.get("/jobtape/health/ready")).json()
        assert "add outbox_table(metadata)" in ready["outbox"]["warning"]
        assert "jobtape_outbox_depth" not in await metrics_of(client)
    assert await rig.depth() == 1


@pytest.mark.usefixtures("environment")
async def test_outbox_of_the_settings_is_forwarded(
    users: UserDatabase, database_url: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBTAPE_OUTBOX_URL", database_url)
    async with jobtape.lifespan(job_types=[add]):
        async with users.transaction("async connection") as connection:
            job = await add.submit_in(connection, x=1, y=2)
        await eventually(lambda: rig.of(job.id))


@pytest.mark.usefixtures("environment")
async def test_application_without_outbox_shows_none(rig: Rig) -> None:
    app = shop([add])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30) as client,
    ):
        assert (await client.get("/jobtape/health/ready")).json()["outbox"] is None
        assert "jobtape_outbox_depth" not in await metrics_of(client)
