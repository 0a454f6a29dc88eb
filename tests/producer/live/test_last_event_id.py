"""Where a resumed stream begins: by the header ``Last-Event-ID``, or by the query parameter of polyfills."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import problem
from tests.producer.sse_client import open_stream
from tests.view.samples import begin, job_id, record, submitted, succeeded

pytestmark = pytest.mark.anyio

FIRST, SECOND, LAST = cursor_of(1, 0), cursor_of(1, 1), cursor_of(1, 2)
EVENTS = "/events"
ONE = f"/jobs/{job_id(1)}/events"
NOW = {EVENTS: LAST, ONE: 0}
"""Where each stream begins by default."""


@pytest.fixture(scope="module")
async def delivered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    """An API with two events of one job, and one of another."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    order = submitted(1)
    record(store, order, succeeded(order), submitted(2))
    async with live_api(store, url) as opened:
        yield opened
    store.close()


async def begun(live: LiveApi, path: str, query: str, header: str | None) -> int | None:
    headers: dict[str, Any] = {} if header is None else {"Last-Event-ID": header}
    async with open_stream(f"{live.url}{path}?{query}", **headers) as stream:
        return (await stream.next(control=True)).id


@pytest.mark.parametrize("path", [EVENTS, ONE])
@pytest.mark.parametrize(
    ("query", "header", "begins"),
    [
        (f"lastEventId={FIRST}", None, FIRST),
        (f"lastEventId={SECOND}&event=failed", None, SECOND),
        (f"event=failed&lastEventId=%20{SECOND}%20", None, SECOND),
        (f"lasteventid={FIRST}", None, FIRST),
        (f"LASTEVENTID={FIRST}", None, FIRST),
        (f"lastEventID={FIRST}", None, FIRST),
        (f"last-event-id={FIRST}", None, FIRST),
        (f"Last-Event-ID={FIRST}", None, FIRST),
        (f"last_event_id={FIRST}", None, FIRST),
        # A polyfill adds its own behind what is in the URL already.
        (f"lastEventId={FIRST}&lastEventId={SECOND}", None, SECOND),
        (f"lastEventId={FIRST}&lastEventId=", None, FIRST),
        (f"lastEventId=&lastEventId={FIRST}", None, FIRST),
        (f"lastEventId={FIRST}&last-event-id={SECOND}", None, SECOND),
        # The header goes before it, and both before `after`.
        (f"lastEventId={FIRST}", str(SECOND), SECOND),
        (f"lastEventId={FIRST}&after={SECOND}", None, FIRST),
        (f"after={FIRST}&lastEventId={SECOND}", None, SECOND),
        (f"after=first&lastEventId={SECOND}", None, SECOND),
        (f"after={FIRST}", str(SECOND), SECOND),
        # What is empty is not there.
        (f"lastEventId={FIRST}", "", FIRST),
        (f"lastEventId=&after={FIRST}", "", FIRST),
        (f"lastEventId=%20&after={FIRST}", None, FIRST),
        ("after=first", "", 0),
        ("lastEventId=", str(FIRST), FIRST),
        ("lastEventId=0", None, 0),
        ("lastEventId=", None, None),
        ("", "", None),
    ],
)
async def test_stream_begins_at_last_event_id_or_after(
    delivered: LiveApi, path: str, query: str, header: str | None, begins: int | None
) -> None:
    assert await begun(delivered, path, query, header) == (NOW[path] if begins is None else begins)


@pytest.mark.parametrize("path", [EVENTS, ONE])
@pytest.mark.parametrize("query", ["lastEventId=x", "lastEventId=-1", "LastEventId=first", "lastEventId=" + "9" * 5000])
async def test_invalid_last_event_id_in_query_is_refused(delivered: LiveApi, path: str, query: str) -> None:
    for more in ("", f"&after={FIRST}"):
        answer = await delivered.api.client.get(f"{path}?{query}{more}", headers={"Accept": "text/event-stream"})
        assert "lastEventId" in problem(answer, 400, "invalid-last-event-id")["detail"]


async def test_header_overrides_invalid_query(delivered: LiveApi) -> None:
    assert await begun(delivered, EVENTS, "lastEventId=x", str(FIRST)) == FIRST
    headers = [("Last-Event-ID", str(FIRST)), ("Last-Event-ID", "")]
    head = await delivered.api.client.head(EVENTS, headers=headers)
    assert head.status_code == 200


async def test_page_refuses_last_event_id(delivered: LiveApi) -> None:
    answer = await delivered.api.client.get(f"{ONE}?lastEventId={FIRST}")
    details = problem(answer, 422, "invalid-query")
    assert [fault["pointer"] for fault in details["errors"]] == ["lastEventId"]
    assert len((await delivered.api.client.get(f"{ONE}?lastEventId=")).json()["items"]) == 2


async def test_last_event_id_is_in_openapi_document(delivered: LiveApi) -> None:
    document = (await delivered.api.client.get("/openapi.json")).json()
    for path in ("/events", "/jobs/{job_id}/events"):
        named = [each["name"] for each in document["paths"][path]["get"]["parameters"]]
        assert named.count("lastEventId") == named.count("Last-Event-ID") == 1
