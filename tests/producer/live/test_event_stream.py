"""Server-sent events from a real view: which events arrive, and where a stream begins, resumes and ends."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from starlette.types import Message

from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Gap, Store
from tests.databases import SessionPostgres
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import problem
from tests.producer.sse_client import Block, open_stream
from tests.view.samples import begin, commit, folded, job_id, postgresql_only, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    """An API whose view has no events."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    async with live_api(store, url) as opened:
        yield opened
        assert opened.api.producer.listeners.tail.breaks == 0
    store.close()


async def test_committed_event_arrives_once(live: LiveApi) -> None:
    record(live.store, submitted(1))
    async with open_stream(f"{live.url}/events") as stream:
        hello = await stream.next(control=True)
        assert (hello.event, hello.id, hello.data) == ("hello", cursor_of(1, 0), {"cursor": cursor_of(1, 0)})
        assert hello.retry is not None
        assert stream.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.answer.headers["cache-control"] == "no-store"
        order = submitted(2)
        record(live.store, order, order, succeeded(order, {"line": "a\nb"}))
        first, second = await stream.next(), await stream.next()
        assert [(block.event, block.id, block.event_id) for block in (first, second)] == [
            ("submitted", cursor_of(1, 1), order.id),
            ("succeeded", cursor_of(1, 3), succeeded(order).id),
        ]
        assert second.data["cursor"] == second.id
        assert second.data["data"]["result"] == {"line": "a\nb"}
    await live.wait_idle()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["1 submitted", "2 submitted", "1 succeeded"]),
        ("event=succeeded", ["1 succeeded"]),
        ("event=succeeded&event=submitted&type=mail.*", ["2 submitted"]),
        ("type=add&type=other", ["1 submitted", "1 succeeded"]),
        ("label=customer:42", ["1 submitted", "1 succeeded"]),
        ("label=customer:42&label=kind:b", []),
        ("correlation_id=c", ["2 submitted"]),
    ],
)
async def test_filters_select_events_from_view_and_buffer(
    live_sqlite: LiveApi, query: str, expected: list[str]
) -> None:
    """Older events come from the view, newer ones from the buffer."""
    first = submitted(1, labels={"customer": "42", "kind": "a"})
    record(live_sqlite.store, first, submitted(2, type="mail.send", correlation_id="c"), succeeded(first))
    numbers = {job_id(1): 1, job_id(2): 2, job_id(3): 1, job_id(4): 2}
    async with open_stream(f"{live_sqlite.url}/events?after=first&{query}") as stream:
        for part in range(2):
            delivered = [await stream.next() for _ in expected]
            assert [f"{numbers[block.data['subject']]} {block.event}" for block in delivered] == expected
            if part == 0:
                more = submitted(3, labels={"customer": "42", "kind": "a"})
                record(live_sqlite.store, more, submitted(4, type="mail.send", correlation_id="c"), succeeded(more))


async def test_stream_resumes_after_last_event_id(live: LiveApi) -> None:
    url = f"{live.url}/events?after=first"
    orders = [submitted(n) for n in range(30)]
    record(live.store, *orders[:10])
    delivered: list[Block] = []
    last_id: int | None = None
    for n in range(6):
        async with open_stream(url, last_id=last_id) as stream:
            delivered += [await stream.next() for _ in range(3)]
            last_id = stream.last_id
            record(live.store, *orders[10 + 2 * n : 12 + 2 * n])
    assert [block.event_id for block in delivered] == [order.id for order in orders[:18]]


async def test_keep_alives_move_position_when_no_event_matches(live: LiveApi) -> None:
    async with open_stream(f"{live.url}/events?event=failed") as stream:
        await stream.next(control=True)
        record(live.store, submitted(1), submitted(2))
        while (block := await stream.next_block()) is not None and block.id != cursor_of(1, 1):
            assert block.comment == "keep-alive"
        assert block is not None
        assert block.data is None


async def test_position_before_horizon_is_reset_to_horizon(live: LiveApi) -> None:
    record(live.store, submitted(1), submitted(2))
    old = cursor_of(1, 0)
    assert live.store.report_gap("me", Gap("tape-replaced", "test"))
    live.store.accept_gap()
    reach = live.store.committed.reach()
    commit(live.store, folded([submitted(3)], first=0, epoch=2))
    async with open_stream(f"{live.url}/events", last_id=old) as stream:
        hello, reset = await stream.next(control=True), await stream.next(control=True)
        assert (hello.event, hello.id) == ("hello", old), "a client that is cut here gets the reset when it reconnects"
        assert (reset.event, reset.id) == ("reset", reach.horizon)
        assert reset.data == {"horizon": reach.horizon, "head": cursor_of(2, 0)}
        assert (await stream.next()).event_id == submitted(3).id
    async with open_stream(f"{live.url}/events?after=first") as stream:
        assert (await stream.next(control=True)).id == 0
        delivered = [await stream.next(control=True) for _ in range(3)]
        everything = [submitted(n).id for n in (1, 2, 3)]
        assert [block.event_id for block in delivered] == everything, "a client that asks for all events gets no reset"


async def test_job_stream_has_events_before_horizon(live: LiveApi) -> None:
    order = submitted(1)
    record(live.store, order, succeeded(order))
    assert live.store.report_gap("me", Gap("tape-replaced", "test"))
    live.store.accept_gap()
    commit(live.store, folded([submitted(2)], first=0, epoch=2))
    assert live.store.committed.reach().horizon > cursor_of(1, 1)
    async with open_stream(f"{live.url}/jobs/{job_id(1)}/events?until=final") as stream:
        assert [block.event for block in await stream.rest() if block.data] == ["hello", "submitted", "succeeded"]


async def test_position_beyond_head_is_reset_to_head(live: LiveApi) -> None:
    record(live.store, submitted(1))
    async with open_stream(f"{live.url}/events?after={cursor_of(7, 1)}") as stream:
        await stream.next(control=True)
        reset = await stream.next(control=True)
        assert (reset.event, reset.id) == ("reset", cursor_of(1, 0))
        assert reset.data == {"horizon": 0, "head": cursor_of(1, 0)}
        record(live.store, submitted(2))
        assert (await stream.next()).event_id == submitted(2).id


async def test_gap_resets_open_streams(live: LiveApi) -> None:
    record(live.store, submitted(1))
    async with (
        open_stream(f"{live.url}/events") as all_of_it,
        open_stream(f"{live.url}/jobs/{job_id(1)}/events") as of_one,
    ):
        for stream in (all_of_it, of_one):
            await stream.next(control=True)
        assert (await of_one.next()).event_id == submitted(1).id
        assert live.store.report_gap("me", Gap("tape-truncated", "test"))
        live.store.accept_gap()
        horizon = live.store.committed.reach().horizon
        commit(live.store, folded([submitted(2)], first=90))
        for stream in (all_of_it, of_one):
            reset = await stream.next(control=True)
            assert (reset.event, reset.id) == ("reset", horizon)
        assert (await all_of_it.next()).event_id == submitted(2).id


async def test_until_final_ends_stream_with_job(live: LiveApi) -> None:
    order, url = submitted(1), f"{live.url}/jobs/{job_id(1)}/events?until=final"
    record(live.store, order)
    async with open_stream(url) as stream, open_stream(f"{url}&event=started") as narrow:
        assert [(await stream.next(control=True)).event for _ in range(2)] == ["hello", "submitted"]
        record(live.store, succeeded(order))
        assert [block.event for block in await stream.rest() if block.data] == ["succeeded"]
        assert [block.event for block in await narrow.rest() if block.data] == ["hello", "succeeded"]
    async with open_stream(url, last_id=cursor_of(1, 1)) as again:
        assert [block.event for block in await again.rest() if block.data] == ["hello"]


@pytest.mark.parametrize("query", ["", "&event=failed"], ids=["all", "some"])
async def test_until_final_ends_stream_when_outcome_precedes_submitted(
    view: Store, sqlite_url: str, query: str
) -> None:
    begin(view)
    order = submitted(1)
    record(view, succeeded(order), order)
    url = f"/jobs/{job_id(1)}/events?until=final{query}"
    async with live_api(view, sqlite_url, keepalive_interval=600.0) as live, open_stream(live.url + url) as stream:
        delivered = [block.event for block in await stream.rest() if block.data]
    assert delivered == ["hello", "succeeded"] + ([] if query else ["submitted"])


async def test_job_events_are_a_page_unless_stream_is_accepted(live_sqlite: LiveApi) -> None:
    record(live_sqlite.store, submitted(1))
    url = f"/jobs/{job_id(1)}/events"
    client = live_sqlite.api.client
    for accept in (
        None,
        "*/*",
        "application/json",
        "text/*",
        "text/html",
    ):
        answer = await client.get(url, headers={} if accept is None else {"Accept": accept})
        assert answer.headers["content-type"] == "application/json", accept
        assert len(answer.json()["items"]) == 1
    assert len((await client.get(f"{url}?after=first")).json()["items"]) == 1
    for accept in (
        "text/event-stream",
        "text/event-stream, */*",
        "application/json;q=0.9, TEXT/Event-Stream",
    ):
        async with open_stream(f"{live_sqlite.url}{url}", Accept=accept) as stream:
            await stream.next()


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/events?after=-1", "after"),
        ("/events?after=last", "after"),
        ("/events?after=", "after"),
        ("/events?after=1.0", "after"),
        (f"/events?after={2**63}", "after"),
        ("/events?after=" + "9" * 5000, "after"),
        ("/events?event=done", "event.0"),
        ("/events?event=submitted&event=", "event.1"),
        ("/events?type=*", "type.0"),
        ("/events?type=a%00", "type.0"),
        ("/events?type=mail*", "type.0"),
        ("/events?label=a", "label.0"),
        ("/events?job=1", "job"),
        ("/events?correlation_id=", "correlation_id"),
        ("/events?correlation_id=" + "x" * 256, "correlation_id"),
        ("/events?limit=1", "limit"),
        ("/events?state=failed", "state"),
        (f"/jobs/{job_id(1)}/events?limit=1", "limit"),
        (f"/jobs/{job_id(1)}/events?until=failed", "until"),
        (f"/jobs/{job_id(1)}/events?type=add", "type"),
    ],
)
async def test_invalid_query_is_refused(refusing: LiveApi, path: str, parameter: str) -> None:
    answer = await refusing.api.client.get(path, headers={"Accept": "text/event-stream"})
    assert parameter in [fault["pointer"] for fault in problem(answer, 422, "invalid-query")["errors"]]


@pytest.mark.parametrize("query", ["until=final", "event=failed"])
async def test_page_refuses_stream_parameters(refusing: LiveApi, query: str) -> None:
    answer = await refusing.api.client.get(f"/jobs/{job_id(1)}/events?{query}")
    assert "text/event-stream" in problem(answer, 422, "invalid-query")["detail"]


@pytest.mark.parametrize("last_id", ["x", "-1", "1.0", "first", str(2**63), "9" * 5000, "1 2", "\u0661"])
@pytest.mark.parametrize("path", ["/events", f"/jobs/{job_id(1)}/events"])
async def test_invalid_last_event_id_is_refused(refusing: LiveApi, path: str, last_id: str) -> None:
    headers = {b"Accept": b"text/event-stream", b"Last-Event-ID": last_id.encode()}
    problem(await refusing.api.client.get(path, headers=headers), 400, "invalid-last-event-id")


async def test_stream_of_invalid_job_id_is_refused(live_sqlite: LiveApi) -> None:
    answer = await live_sqlite.api.client.get("/jobs/x/events", headers={"Accept": "text/event-stream"})
    problem(answer, 422, "invalid-job-id")
    assert live_sqlite.listeners == 0


async def test_streams_are_limited_and_ended_ones_free_their_slot(view: Store, sqlite_url: str) -> None:
    begin(view)
    async with live_api(view, sqlite_url, max_listeners=2, keepalive_interval=0.2) as live:
        async with open_stream(f"{live.url}/events") as first, open_stream(f"{live.url}/events") as second:
            for stream in (first, second):
                await stream.next(control=True)
            full = problem(await live.api.client.get("/events"), 503, "busy")
            assert "JOBTAPE_MAX_LISTENERS" in full["detail"]
        await live.wait_idle()
        async with open_stream(f"{live.url}/events") as stream:
            await stream.next(control=True)


@pytest.mark.parametrize("how", ["gone", "broken", "cancelled"])
async def test_client_that_leaves_before_body_frees_slot(live_sqlite: LiveApi, how: str) -> None:
    """The server reports it in one of three ways: a disconnect, a failed send, or a cancelled request."""
    begun = asyncio.Event()

    async def receive() -> Message:
        if how != "gone":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        begun.set()
        assert live_sqlite.listeners == 1
        if how == "broken":
            raise OSError("the client has left")
        if how == "cancelled":
            await asyncio.Event().wait()

    headers = [(b"accept", b"text/event-stream")]
    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
    request = asyncio.create_task(live_sqlite.api.app(scope | {"asgi": {"spec_version": "2.4"}}, receive, send))
    await eventually(begun.is_set)
    if how == "cancelled":
        request.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait({request})
    assert request.cancelled() == (how == "cancelled")
    await live_sqlite.wait_idle()


async def test_client_that_never_reads_loses_slot(view: Store, sqlite_url: str) -> None:
    begin(view)
    record(view, *(submitted(n, payload={"text": "x" * 200_000}) for n in range(60)))
    async with live_api(view, sqlite_url, send_timeout=0.5) as live:
        _, writer = await asyncio.open_connection("127.0.0.1", int(live.url.rpartition(":")[2]), limit=1024)
        writer.write(b"GET /events?after=first HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: live.listeners == 1)
        await live.wait_idle()
        writer.transport.abort()


async def test_streams_end_when_process_stops(live_sqlite: LiveApi) -> None:
    async with open_stream(f"{live_sqlite.url}/events") as stream:
        await stream.next(control=True)
        live_sqlite.api.producer.listeners.end()
        assert await stream.rest() == []
        problem(await live_sqlite.api.client.get("/events"), 503, "busy")
    await live_sqlite.wait_idle()


async def test_stream_without_database_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with live_api(Store(nowhere), nowhere) as live:
        problem(await live.api.client.get("/events"), 503, "view-unavailable")
        await live.wait_idle()


@postgresql_only
async def test_stream_continues_when_database_returns(
    live: LiveApi, postgres: SessionPostgres, database_url: str
) -> None:
    schema = database_url.rpartition("%3D")[2]
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        async with open_stream(f"{live.url}/events") as stream:
            await stream.next(control=True)
            admin.execute(f"ALTER SCHEMA {schema} RENAME TO {schema}_away".encode())
            await eventually(lambda: live.api.producer.listeners.tail.fault)
            assert (await stream.next_block()) is not None, "keep-alives continue"
            admin.execute(f"ALTER SCHEMA {schema}_away RENAME TO {schema}".encode())
            record(live.store, submitted(1))
            assert (await stream.next()).event_id == submitted(1).id
