"""``GET /subscriptions``: the catch-up subscriptions, and how far each has come; without the management API.

``tests/cli/test_management.py`` tests what it says of live subscriptions.
"""

import re
from datetime import UTC, datetime, timedelta

import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Store
from jobtape.view.subscribers.positions import SUBSCRIPTION
from tests.producer.http.test_read import fill
from tests.producer.running_api import api, without_broker
from tests.view.samples import submitted, succeeded

pytestmark = pytest.mark.anyio


async def test_subscriptions_are_listed_with_what_they_have_not_handled(store: Store, database_url: str) -> None:
    order = submitted(1)
    fill(store, order, succeeded(order), submitted(2))
    store.positions.begin(f"{SUBSCRIPTION}billing", cursor_of(1, 0))
    store.positions.begin("relay", cursor_of(1, 0))
    store.positions.begin(f"{SUBSCRIPTION}audit", cursor_of(1, 2))
    assert store.positions.take(f"{SUBSCRIPTION}audit", "host 7", 60.0) is not None
    settings = without_broker(database_url, management_url="http://127.0.0.1:1")
    async with api(settings, ready=False) as served:
        body = (await served.client.get("/subscriptions")).json()
    assert body["live"] is None
    assert re.search(r"127.0.0.1:1 does not answer \(.+\): enable it \(`rabbitmq-plugins enable", body["live_reason"])
    items = body["items"]
    assert [(each["name"], each["behind"], each["reader"]) for each in items] == [
        ("audit", 0, "host 7"),
        ("billing", 2, None),
    ]
    assert all(datetime.now(UTC) - datetime.fromisoformat(each["moved_at"]) < timedelta(minutes=5) for each in items)
