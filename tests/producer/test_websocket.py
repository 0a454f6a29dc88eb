"""The WebSocket, spoken to by a client of the ``websockets`` library."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

import jobtape
from jobtape.producer.ws_connection import MAX_SUBSCRIPTIONS
from jobtape.schemas.position import cursor_of
from jobtape.view.store import Gap, Store
from tests.producer.live import Live, live_api
from tests.producer.serving import listening, without_broker
from tests.view.samples import begin, commit, folded, job_id, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

KEY = "sésame-öffne-dich"


class Spoken:
    """A client's side."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, **request: Any) -> None:
        await self.socket.send(json.dumps(request))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next message, of these kinds when some are named, otherwise any but a keep-alive."""
        async with asyncio.timeout(20):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if message["type"] in kinds or (not kinds and message["type"] != "keep-alive"):
                    return message

    async def closed(self) -> tuple[int, str]:
        """With which code and why it is closed; what comes before is passed over."""
        try:
            async with asyncio.timeout(20):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code, closed.rcvd.reason


@asynccontextmanager
async def speaking(live: Live, path: str = "/ws", **options: Any) -> AsyncIterator[Spoken]:
    async with connect(f"{live.url.replace('http', 'ws')}{path}", max_size=None, **options) as socket:
        yield Spoken(socket)


async def test_subscribe_hear_and_unsubscribe(live: Live) -> None:
    record(live.store, submitted(1))
    async with speaking(live) as client:
        await client.ask(type="subscribe", id="a", events=["succeeded"])
        assert await client.hear() == {"type": "subscribed", "id": "a", "cursor": cursor_of(1, 0)}
        await client.ask(type="subscribe", id="b", after="first", types=["add"])
        assert await client.hear() == {"type": "subscribed", "id": "b", "cursor": 0}
        first = await client.hear("event")
        assert (first["id"], first["cursor"]) == ("b", cursor_of(1, 0))
        assert (first["event"]["id"], first["event"]["cursor"]) == (submitted(1).id, cursor_of(1, 0))
        record(live.store, succeeded(submitted(1), 5))
        told = [await client.hear("event") for _ in range(2)]
        assert sorted(message["id"] for message in told) == ["a", "b"]
        assert {message["event"]["data"]["result"] for message in told} == {5}
        await client.ask(type="unsubscribe", id="b")
        assert await client.hear("unsubscribed") == {"type": "unsubscribed", "id": "b"}
        record(live.store, submitted(2), succeeded(submitted(2)))
        assert (await client.hear("event"))["id"] == "a"
        await client.ask(type="subscribe", id="b", job=job_id(2), after="first")
        assert [(await client.hear("subscribed", "event"))["type"] for _ in range(3)] == [
            "subscribed",
            "event",
            "event",
        ]
    await live.idle()


async def test_it_resumes_by_cursor(live: Live) -> None:
    orders = [submitted(n) for n in range(12)]
    record(live.store, *orders)
    heard: list[str] = []
    after: int | str = "first"
    for n in range(4):
        async with speaking(live) as client:
            await client.ask(type="subscribe", id="a", after=str(after) if n == 2 else after)
            for _ in range(3):
                message = await client.hear("event")
                heard.append(message["event"]["id"])
                after = message["cursor"]
    assert heard == [order.id for order in orders]


async def test_a_quiet_client_is_moved_on(live: Live) -> None:
    async with speaking(live) as client:
        assert await client.hear("keep-alive") == {"type": "keep-alive", "cursor": None}
        await client.ask(type="subscribe", id="a", events=["failed"])
        await client.ask(type="subscribe", id="b", events=["cancelled"])
        record(live.store, submitted(1), submitted(2))
        while (await client.hear("keep-alive"))["cursor"] != cursor_of(1, 1):
            pass


async def test_reset(live: Live) -> None:
    record(live.store, submitted(1))
    assert live.store.report_gap("me", Gap("log-replaced", "test"))
    live.store.accept_gap()
    horizon = live.store.committed.reach().horizon
    commit(live.store, folded([submitted(2)], first=0, epoch=2))
    async with speaking(live) as client:
        await client.ask(type="subscribe", id="a", after=cursor_of(1, 0))
        assert await client.hear() == {"type": "subscribed", "id": "a", "cursor": cursor_of(1, 0)}
        reset = {"type": "reset", "id": "a", "horizon": horizon, "head": cursor_of(2, 0), "cursor": horizon}
        assert await client.hear() == reset
        assert (await client.hear("event"))["event"]["id"] == submitted(2).id
        await client.ask(type="subscribe", id="b", after=cursor_of(9, 0))
        assert (await client.hear("reset"))["cursor"] == cursor_of(2, 0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", 1007),
        ("{", 1007),
        ("nonsense", 1007),
        ("[" * 60_000, 1007),
        (b"{}", 1003),
        (b"\xff\xfe", 1003),
        ("[]", 1008),
        ("7", 1008),
        ("null", 1008),
        ("{}", 1008),
        ('{"type": "shout"}', 1008),
        ('{"type": ["subscribe"]}', 1008),
        ('"' + "x" * 70_000 + '"', 1009),
        ("x" * 17_000_000, 1009),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_what_cannot_be_understood_ends_the_connection(one: Live, message: str | bytes, code: int) -> None:
    async with speaking(one) as client:
        await client.socket.send(message)
        told, reason = await client.closed()
        assert told == code
        assert reason
    await one.idle()


@pytest.mark.parametrize(
    ("request_", "about"),
    [
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"events": ["done"]}, "events.0"),
        ({"events": "failed"}, "events"),
        ({"types": ["*"]}, "types.0"),
        ({"job": "1"}, "job"),
        ({"labels": ["a:b"]}, "labels"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {"a": "\x00"}}, "NUL"),
        ({"correlation_id": ""}, "correlation_id"),
        ({"after": -1}, "after"),
        ({"after": 1.5}, "after"),
        ({"after": True}, "after"),
        ({"after": "last"}, "after"),
        ({"after": 2**63}, "after"),
        ({"limit": 1}, "limit"),
    ],
)
async def test_a_wrong_request_is_answered_and_the_connection_goes_on(
    one: Live, request_: dict[str, Any], about: str
) -> None:
    async with speaking(one) as client:
        await client.ask(**({"type": "subscribe", "id": "a"} | request_))
        error = await client.hear("error")
        assert about in error["detail"], error
        assert "Traceback" not in error["detail"]
        await client.ask(type="unsubscribe", id="a")
        assert "no subscription" in (await client.hear("error"))["detail"]
        await client.ask(type="subscribe", id="a")
        await client.hear("subscribed")
        await client.ask(type="subscribe", id="a")
        assert (await client.hear("error"))["id"] == "a"


async def test_subscriptions_are_bounded(one: Live) -> None:
    async with speaking(one) as client:
        for n in range(MAX_SUBSCRIPTIONS + 1):
            await client.ask(type="subscribe", id=str(n))
        assert (await client.hear("error"))["id"] == str(MAX_SUBSCRIPTIONS)


async def test_places_are_bounded_and_come_back(view: Store, sqlite_url: str) -> None:
    begin(view)
    async with live_api(view, sqlite_url, max_listeners=1) as live:
        async with speaking(live) as first:
            await first.ask(type="subscribe", id="a")
            await first.hear("subscribed")
            async with speaking(live) as second:
                assert (await second.closed())[0] == 1013
        await live.idle()
        async with speaking(live) as third:
            await third.ask(type="subscribe", id="a")
            await third.hear("subscribed")


async def test_who_never_reads_is_let_go(view: Store, sqlite_url: str) -> None:
    begin(view)
    record(view, *(submitted(n, payload={"text": "x" * 200_000}) for n in range(60)))
    async with (
        live_api(view, sqlite_url, stall=0.5) as live,
        connect(f"{live.url.replace('http', 'ws')}/ws", max_queue=1, compression=None) as socket,
    ):
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "after": "first"}))
        await eventually(lambda: live.listeners == 1)
        await live.idle()
        socket.transport.abort()


async def test_it_is_closed_when_the_process_is_asked_to_stop(one: Live) -> None:
    async with speaking(one) as client:
        await client.ask(type="subscribe", id="a")
        await client.hear("subscribed")
        one.api.producer.listeners.end()
        assert (await client.closed())[0] == 1012
    await one.idle()


async def test_a_database_that_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with live_api(Store(nowhere), nowhere) as live, speaking(live) as client:
        await client.ask(type="subscribe", id="a")
        assert (await client.closed())[0] == 1013


def token(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    async with live_api(store, url, api_key=KEY, origins=["https://app.example.org"]) as opened:
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
async def test_the_key(locked: Live, header: str | None, subprotocols: list[str]) -> None:
    opens = (header is not None and header.lower() == f"bearer {KEY}") or (
        header is None and f"bearer.{token(KEY)}" in subprotocols
    )
    headers = {} if header is None else {"Authorization": header.encode().decode("latin-1")}
    offered = [Subprotocol(each) for each in subprotocols]
    async with speaking(locked, additional_headers=headers, subprotocols=offered or None) as client:
        assert client.socket.subprotocol == ("jobtape" if "jobtape" in subprotocols else None)
        if opens:
            await client.ask(type="subscribe", id="a")
            await client.hear("subscribed")
        else:
            code, reason = await client.closed()
            assert (code, "API key" in reason) == (1008, True)


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
async def test_the_origin(locked: Live, origin: str | None, opens: bool) -> None:
    told = None if origin is None else Origin(origin.format(host=locked.url.removeprefix("http://")))
    async with speaking(locked, origin=told, additional_headers={"Authorization": _header()}) as client:
        if opens:
            await client.ask(type="subscribe", id="a")
            await client.hear("subscribed")
        else:
            code, reason = await client.closed()
            assert (code, "JOBTAPE_ORIGINS" in reason) == (1008, True)


def _header() -> str:
    return f"Bearer {KEY}".encode().decode("latin-1")


async def test_pages_of_a_named_origin_may_use_the_rest_too(locked: Live, one: Live) -> None:
    asked = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "authorization, last-event-id, prefer"
    allowed = await locked.api.client.options("/events", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"
    answer = await locked.api.client.get("/job-types", headers={"Origin": "https://app.example.org"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    for live, origin in ((locked, "https://other.example.org"), (one, "https://app.example.org")):
        answer = await live.api.client.get("/job-types", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


async def test_mounted_under_a_prefix(view: Store, sqlite_url: str) -> None:
    begin(view)
    settings = without_broker(sqlite_url)
    app = FastAPI(lifespan=partial(jobtape.lifespan, job_types=[], settings=settings))
    app.mount("/jobtape", jobtape.create_app(settings, []))
    async with listening(app) as port, connect(f"ws://127.0.0.1:{port}/jobtape/ws") as socket:
        client = Spoken(socket)
        await client.ask(type="subscribe", id="a")
        await client.hear("subscribed")
        record(view, submitted(1))
        assert (await client.hear("event"))["event"]["id"] == submitted(1).id
