"""Tests the browser's module, in Node: a page that loses its connection often gets each event once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Gap, Store
from tests.broker.proxy import Proxy
from tests.producer.conftest import view
from tests.producer.live_api import LiveApi, live_api
from tests.result_clients import ClientProgram, node_program, run_client
from tests.view.samples import begin, commit, folded, record, submitted, succeeded
from tests.waiting import eventually
from tools.clone import ROOT

pytestmark = pytest.mark.anyio

__all__ = ["view"]

MODULE = ROOT / "examples" / "browser" / "events.mjs"
LISTEN = Path(__file__).parent / "listen.mjs"
KEY = "a-key-for-tests"


@pytest.fixture
async def api(view: Store, sqlite_url: str) -> AsyncIterator[LiveApi]:
    """An API with a key, on a view that the test writes into."""
    begin(view)
    async with live_api(view, sqlite_url, keepalive_interval=0.2, api_key=KEY) as opened:
        yield opened


@asynccontextmanager
async def page(url: str, **options: Any) -> AsyncIterator[ClientProgram]:
    """Run a page that receives events from the API at ``url``."""
    command = (node_program()[0], str(LISTEN), str(MODULE), url, json.dumps({"key": KEY} | options))
    async with run_client("", "", command) as running:
        yield running


async def test_browser_module_continues_after_lost_connections(api: LiveApi) -> None:
    chance = random.Random(11)
    orders = [submitted(n) for n in range(110)]
    async with Proxy(api.url) as network, page(network.url, after="first") as running:
        for n in range(10):
            await eventually(lambda: network.connections and api.listeners, what=f"the page listens: {running.errors}")
            record(api.store, *orders[10 * n : 10 * n + 10])
            await asyncio.sleep(chance.uniform(0, 0.03))
            network.cut(reset=n % 2 == 0)
        record(api.store, *orders[100:])
        last = orders[-1].id
        await eventually(lambda: running.lines and running.lines[-1].endswith(last), what="the last event arrives")
        assert running.lines == [f"{cursor_of(1, n)} {order.id}" for n, order in enumerate(orders)]
        assert running.errors.count("closed") >= 10


async def test_browser_module_filters_and_reports_reset(api: LiveApi) -> None:
    mail = submitted(1, type="mail.send", labels={"a": "b"})
    record(api.store, mail, submitted(2, labels={"a": "b"}), succeeded(mail))
    filters = {"type": ["mail.*", "other"], "label": "a:b", "event": "succeeded"}
    async with page(api.url, after="first", **filters) as running:
        await eventually(lambda: running.lines)
        assert running.lines == [f"{cursor_of(1, 2)} {succeeded(mail).id}"]
    assert api.store.report_gap("me", Gap("tape-replaced", "test"))
    api.store.accept_gap()
    commit(api.store, folded([submitted(3)], first=0, epoch=2))
    horizon = api.store.committed.reach().horizon
    async with page(api.url, after=str(cursor_of(1, 0))) as running:
        await eventually(lambda: running.lines)
        assert running.lines == [f"HistoryGone {horizon}"]
        assert await running.process.wait() == 0


async def test_browser_module_does_not_retry_wrong_key(api: LiveApi) -> None:
    async with page(api.url, key="another-key") as running:
        await eventually(lambda: running.lines)
        assert running.lines == ["Refused 401"]
