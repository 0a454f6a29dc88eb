"""With JOBTAPE_API_KEY, everything but the probes and the documentation needs it."""

from collections.abc import AsyncIterator

import pytest

from jobtape.settings import Settings
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem

pytestmark = pytest.mark.anyio

KEY = "sesame-oeffne-dich"
ID = "01a20133-210c-72fa-b9c6-a0de53b5235f"


@pytest.fixture
async def locked(settings: Settings) -> AsyncIterator[Api]:
    async with api(settings.model_copy(update={"api_key": KEY}), add, ready=False) as served:
        yield served


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/jobs"),
        ("POST", "/jobs/batch"),
        ("GET", "/jobs"),
        ("GET", "/jobs?nonsense=1"),
        ("GET", "/jobs/x"),
        ("GET", f"/jobs/{ID}"),
        ("GET", f"/jobs/{ID}/events"),
        ("GET", "/events"),
        ("GET", "/events?nonsense=1"),
        ("GET", "/job-types"),
        ("GET", "/metrics"),
    ],
)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Basic " + KEY.encode(),
        b"Bearer " + KEY.upper().encode(),
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer " + KEY.encode() + b"x",
        b"Bearer \xff\xfe",
        KEY.encode(),
    ],
)
async def test_locked(locked: Api, method: str, path: str, authorization: bytes | None) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization}
    answer = await locked.client.request(method, path, headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


RIGHT = b"Bearer " + KEY.encode()


@pytest.mark.parametrize(
    "given",
    [
        [RIGHT, RIGHT],
        [RIGHT, b"Bearer wrong"],
        [b"Bearer wrong", RIGHT],
        [b"Basic eA==", RIGHT],
        [RIGHT, b""],
        [b"Bearer\t" + KEY.encode()],
        [RIGHT + b" x"],
        [RIGHT + b"\xa0"],  # a space in Latin-1
        [b"Bearer \x85" + KEY.encode()],
        [RIGHT + b", " + RIGHT],
        [b"Bearer " + KEY.encode("utf-16")],
        [b"Bearer " + KEY.encode() * 500],
        [bytes(range(0x80, 0x100))],
        [b"Bearer " + bytes(range(0x80, 0x100))],
        ["Bärer ".encode() + KEY.encode()],
        ["BEARER \u017f".encode()],
    ],
)
async def test_never_an_error(locked: Api, given: list[bytes]) -> None:
    answer = await locked.client.get("/job-types", headers=[(b"Authorization", value) for value in given])
    problem(answer, 401, "unauthorized")


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
async def test_the_key_opens(locked: Api, scheme: bytes) -> None:
    answer = await locked.client.get("/job-types", headers={b"Authorization": scheme + KEY.encode()})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs", "/openapi.json"])
async def test_open(locked: Api, path: str) -> None:
    assert (await locked.client.get(path)).status_code in (200, 503)
