"""Jobs that ended long ago are removed with their history, and no late event restores them."""

from datetime import timedelta

import pytest

from jobtape.consumer.folding import fold_messages
from jobtape.schemas.events import JobEvent, encode
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import FlowNode
from jobtape.view.maintenance import retention
from jobtape.view.store import JobQuery, RawMessage, Store
from tests.view.samples import NOON, record, submitted, succeeded

LATER = NOON + timedelta(days=10)


def test_prune_removes_only_jobs_that_ended_before(store: Store) -> None:
    old, open_, new = submitted(1, labels={"a": "b"}), submitted(2), submitted(3, at=LATER)
    record(store, old, open_, succeeded(old), new, succeeded(new))
    assert store.retention.prune("another", LATER) is None
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None
    assert (pruned.jobs, pruned.last) == (1, None)
    assert store.job(old.subject) is None
    assert store.history(old.subject) == []
    assert store.list_jobs(JobQuery(labels=[("a", "b")])) == []
    assert {job.id for job in store.list_jobs(JobQuery())} == {open_.subject, new.subject}
    assert store.retention.gone([old.subject, open_.subject, "x"]) == {old.subject}


def test_prune_keeps_jobs_until_relay_has_published(store: Store) -> None:
    old = submitted(1)
    record(store, old, succeeded(old))
    assert store.relay.begin("me", 0)
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 0
    assert store.relay.move("me", store.committed.reach().head, 2, 0, None)
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 1


def test_prune_keeps_jobs_until_enabled_webhooks_have_passed_them(store: Store) -> None:
    old = submitted(1)
    record(store, old, succeeded(old))
    for webhook_id in ("a", "b"):
        store.webhooks.create(webhook_id, "https://example.org/", "", EventFilter(), "thin", b"", 0)
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 0
    assert store.webhooks.move("me", {"a": (1, store.committed.reach().head)})
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 0
    assert store.webhooks.disable("b", "nobody answers")
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 1


def test_prune_keeps_jobs_of_a_flow_until_the_flow_has_ended(store: Store) -> None:
    flow = submitted(1)
    node = submitted(2, flow=FlowNode(id=flow.subject, node="first"))
    record(store, flow, node, succeeded(node))
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 0
    record(store, succeeded(flow))
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None and pruned.jobs == 2


def test_prune_raises_horizon(store: Store) -> None:
    old = submitted(1)
    record(store, old, succeeded(old), submitted(2))
    newest = store.history(old.subject)[-1].cursor
    assert store.committed.reach().horizon == 0
    store.retention.prune("me", LATER)
    assert store.committed.reach().horizon == newest
    store.retention.prune("me", LATER)
    assert store.committed.reach().horizon == newest


def test_late_event_does_not_restore_pruned_job(store: Store) -> None:
    old, new = submitted(1), submitted(2)
    record(store, old, succeeded(old))
    store.retention.prune("me", LATER)
    events: list[JobEvent] = [succeeded(old), old, new]
    late = [RawMessage(2**48 + 10 + n, encode(event)) for n, event in enumerate(events)]
    batch = fold_messages(late, store.jobs, store.retention.gone)
    assert [job.id for job in batch.jobs] == [new.subject]
    assert [row.event_id for row in batch.history] == [new.id]


def test_prune_continues_behind_last_id(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 2)
    tape = [submitted(n) for n in range(5)]
    record(store, *tape, *map(succeeded, tape))
    sizes, after = [], ""
    while (pruned := store.retention.prune("me", LATER, after)) is not None:
        sizes.append(pruned.jobs)
        if pruned.last is None:
            break
        after = pruned.last
    assert sizes == [2, 2, 1]
    assert store.list_jobs(JobQuery()) == []


def test_old_tombstones_are_removed(store: Store) -> None:
    old = submitted(1)
    record(store, old, succeeded(old))
    store.retention.prune("me", LATER)
    assert store.retention.prune_rest("me", LATER, 3600.0)
    assert store.retention.gone([old.subject]) == {old.subject}
    assert store.retention.prune_rest("me", LATER, -1.0)
    assert store.retention.gone([old.subject]) == set()
    assert not store.retention.prune_rest("another", LATER, -1.0)


def test_importing_while_newest_events_are_imported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "NEWEST", 2)
    assert not store.retention.importing()
    old, new = submitted(1), submitted(2)
    record(store, old, succeeded(old).model_copy(update={"imported": "x"}))
    assert store.retention.importing()
    record(store, new)
    assert store.retention.importing()
    record(store, succeeded(new))
    assert not store.retention.importing()
