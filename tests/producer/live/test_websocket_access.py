"""Who may use the WebSocket: by the key, and by the page's origin."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator

import pytest
from websockets.typing import Origin, Subprotocol

from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.websocket_client import open_websocket
from tests.view.samples import begin

pytestmark = pytest.mark.anyio

KEY = "sesame-oeffne-dich"


def token(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    async with live_api(store, url, api_key=KEY, cors_origins=["https://app.example.org"]) as opened:
        yield opened
    store.close()


@pytest.mark.parametrize(
    ("header", "subprotocols"),
    [
        (f"Bearer {KEY}", []),
        (f"bearer {KEY}", ["jobtape"]),
        (None, ["jobtape", f"bearer.{token(KEY)}"]),
        (None, [f"bearer.{token(KEY)}"]),
        ("Bearer wrong", ["jobtape", f"bearer.{token(KEY)}"]),
        ("Basic xyz", ["jobtape", f"bearer.{token(KEY)}x"]),
        (None, []),
        (None, ["jobtape"]),
        (None, ["jobtape", "bearer."]),
        (None, ["jobtape", "bearer.!!"]),
        (None, ["jobtape", f"bearer.{KEY.encode().hex()}"]),
        (f"Bearer {KEY}x", []),
    ],
)
async def test_key_is_required_in_header_or_subprotocol(
    locked: LiveApi, header: str | None, subprotocols: list[str]
) -> None:
    opens = (header is not None and header.lower() == f"bearer {KEY}") or (
        header is None and f"bearer.{token(KEY)}" in subprotocols
    )
    headers = {} if header is None else {"Authorization": header.encode().decode("latin-1")}
    offered = [Subprotocol(each) for each in subprotocols]
    async with open_websocket(locked, additional_headers=headers, subprotocols=offered or None) as client:
        assert client.socket.subprotocol == ("jobtape" if "jobtape" in subprotocols else None)
        if opens:
            await client.send(type="subscribe", id="a")
            await client.receive("subscribed")
        else:
            code, reason = await client.wait_closed()
            assert (code, "API key" in reason) == (1008, True)


@pytest.mark.parametrize(
    "given",
    [
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        ["Basic eA==", f"Bearer {KEY}"],
        [f"Bearer {KEY}x"],
        ["Bearer \xff\xfe"],
        [f"Bearer {KEY}, Bearer {KEY}"],
    ],
)
async def test_malformed_authorization_is_refused(locked: LiveApi, given: list[str]) -> None:
    headers = [("Authorization", value.encode().decode("latin-1")) for value in given]
    async with open_websocket(locked, additional_headers=headers) as client:
        assert (await client.wait_closed())[0] == 1008


async def test_key_in_subprotocol_does_not_replace_repeated_headers(locked: LiveApi) -> None:
    headers = [("Authorization", "Bearer wrong"), ("Authorization", "Basic eA==")]
    offered = [Subprotocol("jobtape"), Subprotocol(f"bearer.{token(KEY)}")]
    async with open_websocket(locked, additional_headers=headers, subprotocols=offered) as client:
        assert (await client.wait_closed())[0] == 1008


@pytest.mark.parametrize(
    ("origin", "opens"),
    [
        (None, True),
        ("http://{host}", True),
        ("https://{host}", True),
        ("https://app.example.org", True),
        ("http://app.example.org", False),
        ("https://example.org", False),
        ("https://evil.example/{host}", False),
        ("https://{host}.evil.example", False),
        ("null", False),
        ("", False),
        ("https://[", False),
    ],
)
async def test_origin_must_be_allowed(locked: LiveApi, origin: str | None, opens: bool) -> None:
    delivered = None if origin is None else Origin(origin.format(host=locked.url.removeprefix("http://")))
    async with open_websocket(locked, origin=delivered, additional_headers={"Authorization": _header()}) as client:
        if opens:
            await client.send(type="subscribe", id="a")
            await client.receive("subscribed")
        else:
            code, reason = await client.wait_closed()
            assert (code, "JOBTAPE_CORS_ORIGINS" in reason) == (1008, True)


def _header() -> str:
    return f"Bearer {KEY}".encode().decode("latin-1")


async def test_allowed_origin_may_use_rest_api(locked: LiveApi, live_sqlite: LiveApi) -> None:
    asked = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "authorization, last-event-id, prefer"
    allowed = await locked.api.client.options("/events", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"
    answer = await locked.api.client.get("/job-types", headers={"Origin": "https://app.example.org"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    for live, origin in ((locked, "https://other.example.org"), (live_sqlite, "https://app.example.org")):
        answer = await live.api.client.get("/job-types", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
