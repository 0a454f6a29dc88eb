"""Pages of results, as handlers read them."""

import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.view.jobs import flows
from jobtape.view.store import Store
from tests.view.samples import job_id, record, submitted, succeeded


def test_page_of_results_has_a_limit_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "RESULTS_BYTES", 100)
    jobs = [submitted(n) for n in range(5)]
    texts = ["a" * 40, "b" * 40, "c" * 500, "d", "e"]
    record(store, *jobs, *(succeeded(each, text) for each, text in zip(jobs, texts, strict=True)))
    ids, now = [each.subject for each in jobs], 2**62
    assert [each and each.result for each in store.flows.page_of_results(ids, now)] == texts[:2]
    assert [each and each.result for each in store.flows.page_of_results(ids[2:], now)] == texts[2:3]
    assert [each and each.result for each in store.flows.page_of_results(ids[3:], now)] == texts[3:]


def test_page_of_results_is_that_at_the_cursor(store: Store) -> None:
    first, second = submitted(0), submitted(1)
    record(store, first, second, succeeded(first, "early"), succeeded(second, "late"))
    ids = [first.subject, job_id(9), second.subject]
    then = store.flows.page_of_results(ids, cursor_of(1, 2))
    assert [each and each.result for each in then] == ["early", None, None]
    assert [each and each.state for each in then] == ["succeeded", None, "queued"]
