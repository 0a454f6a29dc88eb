"""The three ways to run the API, import and construction, and the hosts that need a key."""

import subprocess
import sys
from functools import partial

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

import jobtape
from jobtape import builtin
from jobtape.cli.parts.start import refuse_exposure
from jobtape.schemas.errors import JobtapeError, JobTypeInvalid
from jobtape.settings import Settings, read_settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, problem, running_producer, serve
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings as environment variables."""
    monkeypatch.setenv("RABBITMQ_URL", settings.rabbitmq_url)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("JOBTAPE_NAMESPACE", settings.namespace)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api", timeout=30)


def shop(app: FastAPI) -> FastAPI:
    """An application with a route that submits."""

    @app.post("/orders")
    async def order() -> str:
        return (await add.submit(x=1, y=2)).id

    return app


async def ordered(app: FastAPI) -> str:
    async with client_of(app) as client:
        await eventually(lambda: running_producer().watch.tape_fault is None)
        answer = await client.post("/orders")
        assert answer.status_code == 200
        job_id: str = answer.json()
        return job_id


@pytest.mark.usefixtures("environment")
async def test_lifespan_loads_job_types_of_environment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_JOBS", "tests.producer.jobs")
    app = shop(FastAPI(lifespan=jobtape.lifespan))
    async with app.router.lifespan_context(app):
        assert sorted(set(running_producer().job_types) - set(builtin.job_types())) == ["add", "keep", "order.place"]
        job_id = await ordered(app)
    await eventually(lambda: rig.of(job_id))


@pytest.mark.usefixtures("environment")
async def test_lifespan_takes_job_types(rig: Rig) -> None:
    app = shop(FastAPI(lifespan=partial(jobtape.lifespan, job_types=[add])))
    async with app.router.lifespan_context(app):
        job_id = await ordered(app)
    await eventually(lambda: rig.of(job_id))


@pytest.mark.usefixtures("environment")
async def test_api_mounted_under_prefix(rig: Rig, view: Store) -> None:
    app = shop(FastAPI(lifespan=partial(jobtape.lifespan, job_types=[add])))
    app.mount("/jobtape", jobtape.create_app())
    async with rig.projector(view), app.router.lifespan_context(app), client_of(app) as client:
        job_id = await ordered(app)
        assert (await client.get(f"/jobtape/jobs/{job_id}")).json()["payload"] == {"x": 1, "y": 2}
        answer = await client.post("/jobtape/jobs", json={"type": "add", "payload": {"x": 5}})
        assert answer.headers["location"] == f"/jobtape/jobs/{answer.json()['id']}"
        assert (await client.get(answer.headers["location"])).status_code == 200
        problem(await client.get("/jobtape/nothing"), 404, "not-found")
        document = (await client.get("/jobtape/openapi.json")).json()
        assert document["servers"] == [{"url": "/jobtape"}]
        assert "/jobs" in document["paths"]
        assert '"/jobtape/openapi.json"' in (await client.get("/jobtape/docs")).text.replace("'", '"')
        assert (await client.get("/jobtape/health/ready")).status_code == 200


@pytest.mark.usefixtures("environment")
async def test_mounted_api_without_lifespan_is_not_running() -> None:
    app = FastAPI()
    app.mount("/jobtape", jobtape.create_app())
    async with client_of(app) as client:
        answer = await client.post("/jobtape/jobs", json={"type": "add", "payload": {"x": 5}})
        assert "lifespan=jobtape.lifespan" in problem(answer, 503, "not-running")["detail"]
        assert (await client.get("/jobtape/health/live")).status_code == 200
    async with serve(app) as port, connect(f"ws://127.0.0.1:{port}/jobtape/ws") as socket:
        with pytest.raises(ConnectionClosedError, match="1013"):
            await socket.recv()


async def test_unexpected_error_hides_traceback(served: Api, caplog: pytest.LogCaptureFixture) -> None:
    @served.app.get("/broken")
    async def broken() -> None:
        raise LookupError("secret\r\nforged line")

    details = problem(await served.client.get("/broken"), 500, "internal")
    assert "secret" not in str(details)
    (record,) = [record for record in caplog.records if record.name == "jobtape.producer.http.middleware"]
    assert "secret\\r\\nforged line" in record.getMessage()
    assert "in broken" in record.getMessage()


def test_import_and_construction_do_not_connect() -> None:
    code = """
import socket, sqlite3, threading, jobtape
def refuse(*_): raise SystemExit("connected")
socket.socket.connect = sqlite3.connect = socket.getaddrinfo = refuse
import jobtape.app
jobtape.create_app()
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_two_job_types_with_one_name_are_refused(settings: Settings) -> None:
    twin = jobtape.job("add")(lambda_like)
    with pytest.raises(JobTypeInvalid, match="'add'"):
        jobtape.app.by_name([add, twin])


def lambda_like(x: int) -> int:
    return x


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_needs_no_key(host: str) -> None:
    refuse_exposure(read_settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])
def test_other_hosts_need_key(host: str) -> None:
    with pytest.raises(JobtapeError) as refused:
        refuse_exposure(read_settings(host=host))
    assert "JOBTAPE_API_KEY" in str(refused.value)
    assert "\n" not in str(refused.value)
    refuse_exposure(read_settings(host=host, api_key="0123456789"))
