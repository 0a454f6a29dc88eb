"""``jobtape doctor`` and the metrics say which webhooks are disabled or late."""

from datetime import UTC, datetime, timedelta

from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.webhooks import LATE, SHOWN, examine_webhooks
from jobtape.producer.http.routes.operations.metrics import _webhooks
from jobtape.schemas.filters.selection import EventFilter
from jobtape.view.store import Store
from tests.view.samples import begin, record, submitted


def create(store: Store, name: str, cursor: int) -> None:
    store.webhooks.create(name, f"https://{name}.example/", "", EventFilter(), "thin", b"", cursor)


def findings(store: Store) -> list[tuple[str, str]]:
    found = Findings()
    examine_webhooks(found, store)
    return [(each.level, each.what) for each in found.items]


def test_disabled_and_late_webhooks_are_named(store: Store) -> None:
    begin(store)
    assert findings(store) == []
    now = datetime.now(UTC)
    old, new = submitted(1, now - timedelta(seconds=2 * LATE)), submitted(2, now)
    record(store, old, new)
    last = max(row.cursor for row in store.history())
    create(store, "a-current", last)
    assert findings(store) == [("fine", "1 webhooks, none disabled or late")]
    create(store, "b-late", 0)
    create(store, "c-disabled", 0)
    store.webhooks.note_failure("b-late", "503")
    store.webhooks.disable("c-disabled", "it answered 410")
    (disabled, late) = findings(store)
    assert disabled == ("note", "the webhook c-disabled (https://c-disabled.example/) is disabled: it answered 410")
    assert late[0] == "wrong" and "b-late" in late[1] and late[1].endswith("s late; its attempts fail: 503")
    lags = {lag.webhook.id: lag.seconds for lag in store.webhooks.lags(now)}
    assert (lags["a-current"], lags["c-disabled"]) == (0, None)
    assert lags["b-late"] is not None and abs(lags["b-late"] - 2 * LATE) < 1
    samples = {
        (each.name, *each.labels.values()): each.value
        for m in _webhooks(store.webhooks.lags(now))
        for each in m.samples
    }
    assert samples["jobtape_webhooks", "disabled"] == samples["jobtape_webhooks", "failing"] == 1
    assert abs(samples["jobtape_webhook_lag_seconds", "b-late"] - 2 * LATE) < 1
    assert ("jobtape_webhook_lag_seconds", "c-disabled") not in samples


def test_many_disabled_webhooks_are_brief(store: Store) -> None:
    begin(store)
    for n in range(SHOWN + 3):
        create(store, f"w{n:02}", 0)
        store.webhooks.disable(f"w{n:02}", "")
    assert findings(store)[-1] == ("note", "3 more are disabled or late")
    assert len(findings(store)) == SHOWN + 1
