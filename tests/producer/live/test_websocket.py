"""The WebSocket, spoken to by a client of the ``websockets`` library."""

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
from tests.producer.live_api import Live, live_api
from tests.producer.running_api import listening, without_broker
from tests.producer.websocket_client import Spoken, translating_errors
from tests.view.samples import begin, commit, folded, job_id, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_subscribe_hear_and_unsubscribe(live: Live) -> None:
    record(live.store, submitted(1))
    async with translating_errors(live) as client:
        await client.ask(type="subscribe", id="a", events=["succeeded"])
        assert await client.hear() == {"type": "subscribed", "id": "a", "cursor": cursor_of(1, 0)}
        await client.ask(type="subscribe", id="b", after="first", types=["add"])
        assert await client.hear() == {"type": "subscribed", "id": "b", "cursor": 0}
        first = await client.hear("event")
        assert (first["id"], first["cursor"]) == ("b", cursor_of(1, 0))
        assert (first["event"]["id"], first["event"]["cursor"]) == (submitted(1).id, cursor_of(1, 0))
        record(live.store, succeeded(submitted(1), 5))
        delivered = [await client.hear("event") for _ in range(2)]
        assert sorted(message["id"] for message in delivered) == ["a", "b"]
        assert {message["event"]["data"]["result"] for message in delivered} == {5}
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
    received: list[str] = []
    after: int | str = "first"
    for n in range(4):
        async with translating_errors(live) as client:
            await client.ask(type="subscribe", id="a", after=str(after) if n == 2 else after)
            for _ in range(3):
                message = await client.hear("event")
                received.append(message["event"]["id"])
                after = message["cursor"]
    assert received == [order.id for order in orders]


async def test_a_quiet_client_is_moved_on(live: Live) -> None:
    async with translating_errors(live) as client:
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
    async with translating_errors(live) as client:
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
    async with translating_errors(one) as client:
        await client.socket.send(message)
        delivered, reason = await client.closed()
        assert delivered == code
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
    async with translating_errors(one) as client:
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
    async with translating_errors(one) as client:
        for n in range(MAX_SUBSCRIPTIONS + 1):
            await client.ask(type="subscribe", id=str(n))
        assert (await client.hear("error"))["id"] == str(MAX_SUBSCRIPTIONS)


async def test_places_are_bounded_and_come_back(view: Store, sqlite_url: str) -> None:
    begin(view)
    async with live_api(view, sqlite_url, max_listeners=1) as live:
        async with translating_errors(live) as first:
            await first.ask(type="subscribe", id="a")
            await first.hear("subscribed")
            async with translating_errors(live) as second:
                assert (await second.closed())[0] == 1013
        await live.idle()
        async with translating_errors(live) as third:
            await third.ask(type="subscribe", id="a")
            await third.hear("subscribed")


async def test_who_never_reads_is_let_go(view: Store, sqlite_url: str) -> None:
    begin(view)
    record(view, *(submitted(n, payload={"text": "x" * 200_000}) for n in range(60)))
    async with (
        live_api(view, sqlite_url, send_timeout=0.5) as live,
        connect(f"{live.url.replace('http', 'ws')}/ws", max_queue=1, compression=None) as socket,
    ):
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "after": "first"}))
        await eventually(lambda: live.listeners == 1)
        await live.idle()
        socket.transport.abort()


async def test_it_is_closed_when_the_process_is_asked_to_stop(one: Live) -> None:
    async with translating_errors(one) as client:
        await client.ask(type="subscribe", id="a")
        await client.hear("subscribed")
        one.api.producer.listeners.end()
        assert (await client.closed())[0] == 1012
    await one.idle()


async def test_a_database_that_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with live_api(Store(nowhere), nowhere) as live, translating_errors(live) as client:
        await client.ask(type="subscribe", id="a")
        assert (await client.closed())[0] == 1013


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
