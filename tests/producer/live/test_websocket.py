"""The WebSocket ``/ws``, with a client of the ``websockets`` library."""

import json
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect

import jobtape
from jobtape.producer.http.websocket.connection import MAX_SUBSCRIPTIONS
from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Gap, Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import serve, without_broker
from tests.producer.websocket_client import WebSocketClient, open_websocket
from tests.view.samples import begin, commit, folded, job_id, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_subscribe_receive_and_unsubscribe(live: LiveApi) -> None:
    record(live.store, submitted(1))
    async with open_websocket(live) as client:
        await client.send(type="subscribe", id="a", events=["succeeded"])
        assert await client.receive() == {"type": "subscribed", "id": "a", "cursor": cursor_of(1, 0)}
        await client.send(type="subscribe", id="b", after="first", types=["add"])
        assert await client.receive() == {"type": "subscribed", "id": "b", "cursor": 0}
        first = await client.receive("event")
        assert (first["id"], first["cursor"]) == ("b", cursor_of(1, 0))
        assert (first["event"]["id"], first["event"]["cursor"]) == (submitted(1).id, cursor_of(1, 0))
        record(live.store, succeeded(submitted(1), 5))
        delivered = [await client.receive("event") for _ in range(2)]
        assert sorted(message["id"] for message in delivered) == ["a", "b"]
        assert {message["event"]["data"]["result"] for message in delivered} == {5}
        await client.send(type="unsubscribe", id="b")
        assert await client.receive("unsubscribed") == {"type": "unsubscribed", "id": "b"}
        record(live.store, submitted(2), succeeded(submitted(2)))
        assert (await client.receive("event"))["id"] == "a"
        await client.send(type="subscribe", id="b", job=job_id(2), after="first")
        assert [(await client.receive("subscribed", "event"))["type"] for _ in range(3)] == [
            "subscribed",
            "event",
            "event",
        ]
    await live.wait_idle()


async def test_subscription_resumes_after_cursor(live: LiveApi) -> None:
    orders = [submitted(n) for n in range(12)]
    record(live.store, *orders)
    received: list[str] = []
    after: int | str = "first"
    for n in range(4):
        async with open_websocket(live) as client:
            await client.send(type="subscribe", id="a", after=str(after) if n == 2 else after)
            for _ in range(3):
                message = await client.receive("event")
                received.append(message["event"]["id"])
                after = message["cursor"]
    assert received == [order.id for order in orders]


async def test_keep_alive_moves_position_when_no_event_matches(live: LiveApi) -> None:
    async with open_websocket(live) as client:
        assert await client.receive("keep-alive") == {"type": "keep-alive", "cursor": None}
        await client.send(type="subscribe", id="a", events=["failed"])
        await client.send(type="subscribe", id="b", events=["cancelled"])
        record(live.store, submitted(1), submitted(2))
        while (await client.receive("keep-alive"))["cursor"] != cursor_of(1, 1):
            pass


async def test_position_outside_history_is_reset(live: LiveApi) -> None:
    record(live.store, submitted(1))
    assert live.store.report_gap("me", Gap("tape-replaced", "test"))
    live.store.accept_gap()
    horizon = live.store.committed.reach().horizon
    commit(live.store, folded([submitted(2)], first=0, epoch=2))
    async with open_websocket(live) as client:
        await client.send(type="subscribe", id="a", after=cursor_of(1, 0))
        assert await client.receive() == {"type": "subscribed", "id": "a", "cursor": cursor_of(1, 0)}
        reset = {"type": "reset", "id": "a", "horizon": horizon, "head": cursor_of(2, 0), "cursor": horizon}
        assert await client.receive() == reset
        assert (await client.receive("event"))["event"]["id"] == submitted(2).id
        await client.send(type="subscribe", id="b", after=cursor_of(9, 0))
        assert (await client.receive("reset"))["cursor"] == cursor_of(2, 0)


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
async def test_invalid_message_closes_connection(live_sqlite: LiveApi, message: str | bytes, code: int) -> None:
    async with open_websocket(live_sqlite) as client:
        await client.socket.send(message)
        delivered, reason = await client.wait_closed()
        assert delivered == code
        assert reason
    await live_sqlite.wait_idle()


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
async def test_invalid_request_gets_error_and_connection_continues(
    live_sqlite: LiveApi, request_: dict[str, Any], about: str
) -> None:
    async with open_websocket(live_sqlite) as client:
        await client.send(**({"type": "subscribe", "id": "a"} | request_))
        error = await client.receive("error")
        assert about in error["detail"], error
        assert "Traceback" not in error["detail"]
        await client.send(type="unsubscribe", id="a")
        assert "no subscription" in (await client.receive("error"))["detail"]
        await client.send(type="subscribe", id="a")
        await client.receive("subscribed")
        await client.send(type="subscribe", id="a")
        assert (await client.receive("error"))["id"] == "a"


async def test_subscriptions_are_limited(live_sqlite: LiveApi) -> None:
    async with open_websocket(live_sqlite) as client:
        for n in range(MAX_SUBSCRIPTIONS + 1):
            await client.send(type="subscribe", id=str(n))
        assert (await client.receive("error"))["id"] == str(MAX_SUBSCRIPTIONS)


async def test_connections_are_limited_and_closed_ones_free_their_slot(view: Store, sqlite_url: str) -> None:
    begin(view)
    async with live_api(view, sqlite_url, max_listeners=1) as live:
        async with open_websocket(live) as first:
            await first.send(type="subscribe", id="a")
            await first.receive("subscribed")
            async with open_websocket(live) as second:
                assert (await second.wait_closed())[0] == 1013
        await live.wait_idle()
        async with open_websocket(live) as third:
            await third.send(type="subscribe", id="a")
            await third.receive("subscribed")


async def test_client_that_never_reads_loses_slot(view: Store, sqlite_url: str) -> None:
    begin(view)
    record(view, *(submitted(n, payload={"text": "x" * 200_000}) for n in range(60)))
    async with (
        live_api(view, sqlite_url, send_timeout=0.5) as live,
        connect(f"{live.url.replace('http', 'ws')}/ws", max_queue=1, compression=None) as socket,
    ):
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "after": "first"}))
        await eventually(lambda: live.listeners == 1)
        await live.wait_idle()
        socket.transport.abort()


async def test_connection_is_closed_when_process_stops(live_sqlite: LiveApi) -> None:
    async with open_websocket(live_sqlite) as client:
        await client.send(type="subscribe", id="a")
        await client.receive("subscribed")
        live_sqlite.api.producer.listeners.end()
        assert (await client.wait_closed())[0] == 1012
    await live_sqlite.wait_idle()


async def test_connection_without_database_is_closed(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with live_api(Store(nowhere), nowhere) as live, open_websocket(live) as client:
        await client.send(type="subscribe", id="a")
        assert (await client.wait_closed())[0] == 1013


async def test_websocket_works_under_prefix(view: Store, sqlite_url: str) -> None:
    begin(view)
    settings = without_broker(sqlite_url)
    app = FastAPI(lifespan=partial(jobtape.lifespan, job_types=[], settings=settings))
    app.mount("/jobtape", jobtape.create_app(settings, []))
    async with serve(app) as port, connect(f"ws://127.0.0.1:{port}/jobtape/ws") as socket:
        client = WebSocketClient(socket)
        await client.send(type="subscribe", id="a")
        await client.receive("subscribed")
        record(view, submitted(1))
        assert (await client.receive("event"))["event"]["id"] == submitted(1).id
