"""Server-sent events over a real socket, from a real view: what arrives, where a stream begins, resumes and ends."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from starlette.types import Message

from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Gap, Store
from tests.databases import SessionPostgres
from tests.producer.live_api import Live, live_api
from tests.producer.running_api import problem
from tests.producer.sse_client import Said, hearing
from tests.view.samples import begin, commit, folded, job_id, postgresql_only, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """An API whose view has no events."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    async with live_api(store, url) as opened:
        yield opened
        assert opened.api.producer.listeners.tail.breaks == 0
    store.close()


async def test_committed_event_arrives_at_once_and_once(live: Live) -> None:
    record(live.store, submitted(1))
    async with hearing(f"{live.url}/events") as received:
        hello = await received.next(control=True)
        assert (hello.event, hello.id, hello.data) == ("hello", cursor_of(1, 0), {"cursor": cursor_of(1, 0)})
        assert hello.retry is not None
        assert received.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert received.answer.headers["cache-control"] == "no-store"
        order = submitted(2)
        record(live.store, order, order, succeeded(order, {"line": "a\nb"}))
        first, second = await received.next(), await received.next()
        assert [(said.event, said.id, said.fact) for said in (first, second)] == [
            ("submitted", cursor_of(1, 1), order.id),
            ("succeeded", cursor_of(1, 3), succeeded(order).id),
        ]
        assert second.data["cursor"] == second.id
        assert second.data["data"]["result"] == {"line": "a\nb"}
    await live.idle()


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
async def test_filters(one: Live, query: str, expected: list[str]) -> None:
    """The same from the view (what was there before) as from the ring (what came after)."""
    first = submitted(1, labels={"customer": "42", "kind": "a"})
    record(one.store, first, submitted(2, type="mail.send", correlation_id="c"), succeeded(first))
    numbers = {job_id(1): 1, job_id(2): 2, job_id(3): 1, job_id(4): 2}
    async with hearing(f"{one.url}/events?after=first&{query}") as received:
        for part in range(2):
            delivered = [await received.next() for _ in expected]
            assert [f"{numbers[said.data['subject']]} {said.event}" for said in delivered] == expected
            if part == 0:
                more = submitted(3, labels={"customer": "42", "kind": "a"})
                record(one.store, more, submitted(4, type="mail.send", correlation_id="c"), succeeded(more))


async def test_it_resumes_where_it_was_cut(live: Live) -> None:
    url = f"{live.url}/events?after=first"
    orders = [submitted(n) for n in range(30)]
    record(live.store, *orders[:10])
    delivered: list[Said] = []
    last_id: int | None = None
    for n in range(6):
        async with hearing(url, last_id=last_id) as received:
            delivered += [await received.next() for _ in range(3)]
            last_id = received.last_id
            record(live.store, *orders[10 + 2 * n : 12 + 2 * n])
    assert [said.fact for said in delivered] == [order.id for order in orders[:18]]


async def test_keep_alives_move_the_position_of_who_wants_nothing_of_it(live: Live) -> None:
    async with hearing(f"{live.url}/events?event=failed") as received:
        await received.next(control=True)
        record(live.store, submitted(1), submitted(2))
        while (said := await received.block()) is not None and said.id != cursor_of(1, 1):
            assert said.comment == "keep-alive"
        assert said is not None
        assert said.data is None


async def test_a_position_before_what_is_kept_is_reset_to_the_horizon(live: Live) -> None:
    record(live.store, submitted(1), submitted(2))
    old = cursor_of(1, 0)
    assert live.store.report_gap("me", Gap("log-replaced", "test"))
    live.store.accept_gap()
    reach = live.store.committed.reach()
    commit(live.store, folded([submitted(3)], first=0, epoch=2))
    async with hearing(f"{live.url}/events", last_id=old) as received:
        hello, reset = await received.next(control=True), await received.next(control=True)
        assert (hello.event, hello.id) == ("hello", old), "a client that is cut here gets the reset when it reconnects"
        assert (reset.event, reset.id) == ("reset", reach.horizon)
        assert reset.data == {"horizon": reach.horizon, "head": cursor_of(2, 0)}
        assert (await received.next()).fact == submitted(3).id
    async with hearing(f"{live.url}/events?after=first") as received:
        assert (await received.next(control=True)).id == 0
        delivered = [await received.next(control=True) for _ in range(3)]
        everything = [submitted(n).id for n in (1, 2, 3)]
        assert [said.fact for said in delivered] == everything, "a client that asks for all events gets no reset"


async def test_a_job_from_before_the_horizon_has_its_own_events(live: Live) -> None:
    order = submitted(1)
    record(live.store, order, succeeded(order))
    assert live.store.report_gap("me", Gap("log-replaced", "test"))
    live.store.accept_gap()
    commit(live.store, folded([submitted(2)], first=0, epoch=2))
    assert live.store.committed.reach().horizon > cursor_of(1, 1)
    async with hearing(f"{live.url}/jobs/{job_id(1)}/events?until=final") as received:
        assert [said.event for said in await received.rest() if said.data] == ["hello", "submitted", "succeeded"]


async def test_a_position_that_the_tape_never_reached_is_reset_to_the_head(live: Live) -> None:
    record(live.store, submitted(1))
    async with hearing(f"{live.url}/events?after={cursor_of(7, 1)}") as received:
        await received.next(control=True)
        reset = await received.next(control=True)
        assert (reset.event, reset.id) == ("reset", cursor_of(1, 0))
        assert reset.data == {"horizon": 0, "head": cursor_of(1, 0)}
        record(live.store, submitted(2))
        assert (await received.next()).fact == submitted(2).id


async def test_hole_in_the_history_resets_listeners(live: Live) -> None:
    record(live.store, submitted(1))
    async with hearing(f"{live.url}/events") as all_of_it, hearing(f"{live.url}/jobs/{job_id(1)}/events") as of_one:
        for received in (all_of_it, of_one):
            await received.next(control=True)
        assert (await of_one.next()).fact == submitted(1).id
        assert live.store.report_gap("me", Gap("log-truncated", "test"))
        live.store.accept_gap()
        horizon = live.store.committed.reach().horizon
        commit(live.store, folded([submitted(2)], first=90))
        for received in (all_of_it, of_one):
            reset = await received.next(control=True)
            assert (reset.event, reset.id) == ("reset", horizon)
        assert (await all_of_it.next()).fact == submitted(2).id


async def test_the_stream_of_a_job_ends_with_the_job_when_asked(live: Live) -> None:
    order, url = submitted(1), f"{live.url}/jobs/{job_id(1)}/events?until=final"
    record(live.store, order)
    async with hearing(url) as received, hearing(f"{url}&event=started") as narrow:
        assert [(await received.next(control=True)).event for _ in range(2)] == ["hello", "submitted"]
        record(live.store, succeeded(order))
        assert [said.event for said in await received.rest() if said.data] == ["succeeded"]
        assert [said.event for said in await narrow.rest() if said.data] == ["hello", "succeeded"]
    async with hearing(url, last_id=cursor_of(1, 1)) as again:
        assert [said.event for said in await again.rest() if said.data] == ["hello"]


@pytest.mark.parametrize("query", ["", "&event=failed"], ids=["all", "some"])
async def test_an_outcome_that_overtook_its_submission_ends_the_stream(
    view: Store, sqlite_url: str, query: str
) -> None:
    begin(view)
    order = submitted(1)
    record(view, succeeded(order), order)
    url = f"/jobs/{job_id(1)}/events?until=final{query}"
    async with live_api(view, sqlite_url, keepalive_interval=600.0) as live, hearing(live.url + url) as received:
        delivered = [said.event for said in await received.rest() if said.data]
    assert delivered == ["hello", "succeeded"] + ([] if query else ["submitted"])


async def test_the_page_of_a_job_s_events_stays_what_one_gets_without_asking_for_a_stream(one: Live) -> None:
    record(one.store, submitted(1))
    url = f"/jobs/{job_id(1)}/events"
    client = one.api.client
    for accept in (
        None,
        "*/*",
        "application/json",
        "text/event-stream;q=0.5, */*",
        "text/event-stream, */*",
        "text/html",
    ):
        answer = await client.get(url, headers={} if accept is None else {"Accept": accept})
        assert answer.headers["content-type"] == "application/json", accept
        assert len(answer.json()["items"]) == 1
    assert len((await client.get(f"{url}?after=first")).json()["items"]) == 1
    for accept in (
        "text/event-stream",
        "text/event-stream, application/json;q=0.9",
        "text/*",
        "TEXT/Event-Stream;q=0.1",
    ):
        async with hearing(f"{one.url}{url}", Accept=accept) as received:
            await received.next()


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
async def test_bad_queries(refusing: Live, path: str, parameter: str) -> None:
    answer = await refusing.api.client.get(path, headers={"Accept": "text/event-stream"})
    assert parameter in [fault["pointer"] for fault in problem(answer, 422, "invalid-query")["errors"]]


@pytest.mark.parametrize("query", ["until=final", "event=failed"])
async def test_what_is_for_a_stream_is_refused_for_a_page(refusing: Live, query: str) -> None:
    answer = await refusing.api.client.get(f"/jobs/{job_id(1)}/events?{query}")
    assert "text/event-stream" in problem(answer, 422, "invalid-query")["detail"]


@pytest.mark.parametrize("last_id", ["x", "-1", "1.0", "first", str(2**63), "9" * 5000, "1 2", "\u0661"])
@pytest.mark.parametrize("path", ["/events", f"/jobs/{job_id(1)}/events"])
async def test_a_last_event_id_that_is_none(refusing: Live, path: str, last_id: str) -> None:
    headers = {b"Accept": b"text/event-stream", b"Last-Event-ID": last_id.encode()}
    problem(await refusing.api.client.get(path, headers=headers), 400, "invalid-last-event-id")


async def test_an_unknown_job_has_no_stream(one: Live) -> None:
    answer = await one.api.client.get("/jobs/x/events", headers={"Accept": "text/event-stream"})
    problem(answer, 422, "invalid-job-id")
    assert one.listeners == 0


async def test_places_are_bounded_and_come_back(view: Store, sqlite_url: str) -> None:
    begin(view)
    async with live_api(view, sqlite_url, max_listeners=2) as live:
        async with hearing(f"{live.url}/events") as first, hearing(f"{live.url}/events") as second:
            for received in (first, second):
                await received.next(control=True)
            full = problem(await live.api.client.get("/events"), 503, "busy")
            assert "JOBTAPE_MAX_LISTENERS" in full["detail"]
        await live.idle()
        async with hearing(f"{live.url}/events") as received:
            await received.next(control=True)


@pytest.mark.parametrize("how", ["gone", "broken", "cancelled"])
async def test_who_leaves_before_the_body_begins_gives_the_place_back(one: Live, how: str) -> None:
    """As a server tells it: the client has left; or sending to it fails; or the server gives up on the request."""
    begun = asyncio.Event()

    async def receive() -> Message:
        if how != "gone":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        begun.set()
        assert one.listeners == 1
        if how == "broken":
            raise OSError("the client has left")
        if how == "cancelled":
            await asyncio.Event().wait()

    headers = [(b"accept", b"text/event-stream")]
    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
    request = asyncio.create_task(one.api.app(scope | {"asgi": {"spec_version": "2.4"}}, receive, send))
    await eventually(begun.is_set)
    if how == "cancelled":
        request.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait({request})
    assert request.cancelled() == (how == "cancelled")
    await one.idle()


async def test_who_never_reads_is_let_go(view: Store, sqlite_url: str) -> None:
    begin(view)
    record(view, *(submitted(n, payload={"text": "x" * 200_000}) for n in range(60)))
    async with live_api(view, sqlite_url, send_timeout=0.5) as live:
        _, writer = await asyncio.open_connection("127.0.0.1", int(live.url.rpartition(":")[2]), limit=1024)
        writer.write(b"GET /events?after=first HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: live.listeners == 1)
        await live.idle()
        writer.transport.abort()


async def test_streams_end_when_the_process_is_asked_to_stop(one: Live) -> None:
    async with hearing(f"{one.url}/events") as received:
        await received.next(control=True)
        one.api.producer.listeners.end()
        assert await received.rest() == []
        problem(await one.api.client.get("/events"), 503, "busy")
    await one.idle()


async def test_without_a_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with live_api(Store(nowhere), nowhere) as live:
        problem(await live.api.client.get("/events"), 503, "view-unavailable")
        await live.idle()


@postgresql_only
async def test_a_database_that_is_away_meanwhile(live: Live, postgres: SessionPostgres, database_url: str) -> None:
    schema = database_url.rpartition("%3D")[2]
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        async with hearing(f"{live.url}/events") as received:
            await received.next(control=True)
            admin.execute(f"ALTER SCHEMA {schema} RENAME TO {schema}_away".encode())
            await eventually(lambda: live.api.producer.listeners.tail.trouble)
            assert (await received.block()) is not None, "it shows life all the same"
            admin.execute(f"ALTER SCHEMA {schema}_away RENAME TO {schema}".encode())
            record(live.store, submitted(1))
            assert (await received.next()).fact == submitted(1).id
