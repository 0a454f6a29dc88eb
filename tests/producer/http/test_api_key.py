"""With JOBTAPE_API_KEY, everything but the probes and the documents needs the key."""

from collections.abc import AsyncIterator

import pytest

from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem, without_broker

pytestmark = pytest.mark.anyio

KEY = "sesame-oeffne-dich"
ID = "01a20133-210c-72fa-b9c6-a0de53b5235f"


@pytest.fixture(scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API with a key, without a broker."""
    settings = without_broker(f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db", api_key=KEY)
    async with api(settings, add, ready=False) as served:
        yield served


WRONG = [
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
]


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
async def test_request_without_key_is_refused(locked: Api, method: str, path: str) -> None:
    for authorization in WRONG:
        headers = {} if authorization is None else {b"Authorization": authorization}
        answer = await locked.client.request(method, path, headers=headers)
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer"), authorization


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
async def test_malformed_authorization_is_refused(locked: Api, given: list[bytes]) -> None:
    answer = await locked.client.get("/job-types", headers=[(b"Authorization", value) for value in given])
    problem(answer, 401, "unauthorized")


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
async def test_key_is_accepted(locked: Api, scheme: bytes) -> None:
    answer = await locked.client.get("/job-types", headers={b"Authorization": scheme + KEY.encode()})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs", "/openapi.json"])
async def test_probes_and_documents_need_no_key(locked: Api, path: str) -> None:
    assert (await locked.client.get(path)).status_code in (200, 503)
