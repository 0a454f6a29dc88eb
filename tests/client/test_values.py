"""Tests that values are unchanged when they are submitted over HTTP, executed, recorded and read by the client."""

import base64
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import BaseModel, Field, SecretStr, computed_field

from jobtape import Client, Context, Options, RetryPolicy, job
from jobtape.broker.declare import remove_namespace
from jobtape.client import Invalid
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tests.producer.running_api import api, serve, settings_for

pytestmark = pytest.mark.anyio


class Login(BaseModel, extra="forbid"):
    user: str = Field(alias="userName", serialization_alias="user_name")
    password: SecretStr

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.password.get_secret_value())


class Base(BaseModel):
    n: int


class Derived(Base):
    more: int


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@job("login")
@traced
async def login(login: Login) -> Login:
    assert login.password.get_secret_value() == "secret"
    return login


@job("base")
def base(n: int) -> Base:
    return Derived(n=n, more=2)


SEEN: list[tuple[UUID, datetime]] = []


@job("made", retry=RetryPolicy(max_attempts=3, first=0.01))
def made(
    ctx: Context | None,
    key: UUID = Field(default_factory=uuid4),  # noqa: B008
    at: datetime = Field(default_factory=lambda: datetime.now(UTC)),  # noqa: B008
) -> str:
    assert ctx is not None
    SEEN.append((key, at))
    if ctx.attempt < 3 and ctx.run == 1:
        raise ValueError("another attempt")
    return str(key)


@pytest.fixture(scope="module")
async def url(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Run an API, a projector and a worker for all tests of this module, and yield the URL of the API."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JOBTAPE_SECRET_KEYS", base64.urlsafe_b64encode(b"k" * 32).decode())
        async with _running(broker_url, tmp_path_factory) as address:
            yield address


@asynccontextmanager
async def _running(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    topology = some_topology()
    database_url = f"sqlite:///{tmp_path_factory.mktemp('values') / 'view.db'}"
    store = Store(database_url)
    store.migrate()
    jobs = (login, base, made)
    async with (
        Rig(broker_url, topology) as rig,
        api(settings_for(broker_url, topology, database_url), *jobs) as served,
        rig.projector(store),
        rig.worker(*jobs),
        serve(served.app, lifespan="off") as port,
    ):
        yield f"http://127.0.0.1:{port}"
    store.close()
    await remove_namespace(broker_url, topology)


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(url) as opened:
        yield opened


async def test_secret_and_aliases_are_sent_and_only_the_handler_gets_the_secret(client: Client) -> None:
    given = Login(userName="a", password=SecretStr("secret"))
    handle = await client.submit(login, given)
    masked = "**********"
    assert handle.job.payload == {"userName": "a", "password": masked}
    assert (await handle.result(timeout=20)).password == SecretStr(masked)
    assert (await client.get(handle)).result == {"user_name": "a", "password": masked, "length": 6}


async def test_result_of_a_derived_class_is_recorded(client: Client) -> None:
    handle = await client.submit(base, 1)
    result = await handle.result(timeout=20)
    assert (type(result), result.n, (await client.get(handle)).result) == (Base, 1, {"n": 1, "more": 2})


async def test_misspelt_field_is_refused_over_http(client: Client) -> None:
    with pytest.raises(Invalid, match="passwrod"):
        await client.submit("login", {"userName": "a", "password": "secret", "passwrod": "secret"})
    with pytest.raises(Invalid, match="more"):
        await client.submit("base", {"n": 1, "more": 2})


async def test_default_is_the_same_in_each_attempt_and_run(client: Client) -> None:
    SEEN.clear()
    handle = await client.submit(made)
    payload = handle.job.payload
    assert payload is not None
    assert await handle.result(timeout=20) == payload["key"]
    assert (await client.wait(await client.redrive(handle), timeout=20)).result == payload["key"]
    assert len(SEEN) >= 4
    assert {(str(key), at.isoformat().replace("+00:00", "Z")) for key, at in SEEN} == {(payload["key"], payload["at"])}


async def test_default_is_made_when_the_job_is_accepted(client: Client) -> None:
    one, two = await client.submit("made", {}), await client.submit(made)
    async with httpx.AsyncClient(base_url=client.url) as http:
        items = [{"type": "made", "payload": {}}, {"type": "made", "payload": {}, "delay": 60}]
        answer = (await http.post("/jobs/batch", json=items)).json()
    jobs = [one.job, two.job, *[await client.get(item["id"]) for item in answer["items"]]]
    assert len({(each.payload or {})["key"] for each in jobs}) == 4
    assert all((each.payload or {}).keys() == {"key", "at"} for each in jobs)


async def test_same_call_under_a_key_is_one_job(client: Client) -> None:
    options = Options(idempotency_key=uuid4().hex)
    first = await client.submit_with(options, made)
    assert (await client.submit_with(options, made)).id == first.id
