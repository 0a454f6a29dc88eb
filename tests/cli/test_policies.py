"""Tests how jobs that a policy dropped are reported and rescued."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.policies import examine_policies
from jobtape.consumer.folding import outbox_row
from jobtape.schemas.effects import rescue, rescue_dropped
from jobtape.schemas.events import submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, Order
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A view on SQLite only: these tests do not depend on the database."""
    made = Store(sqlite_url)
    made.migrate()
    yield made
    made.close()


def some_job() -> Job:
    order = Order(type="add", payload={}, queue="default", timeout=30.0)
    return evolve(None, submitted("01890a5d-ac96-774b-bcce-b302099a8057", order, source="/jobtape/x", time=NOW))


def test_doctor_names_dropped_jobs_when_policies_are_unknown(store: Store) -> None:
    store.create_checkpoint()
    assert store.take_lease("me", 60)
    effect = rescue_dropped(some_job(), "expired", source="/jobtape/x", time=NOW)
    assert effect is not None
    assert store.outbox.add("me", [outbox_row(effect)])
    found = Findings()
    examine_policies(found, Settings(management_url="http://127.0.0.1:1"), Topology("doctored"), store)
    dropped, unseen = found.items
    assert (dropped.level, unseen.level) == ("wrong", "note")
    assert "from the queue default 1 times (expired), because a policy sets message-ttl" in dropped.what
    assert "list_operator_policies" in (unseen.todo or "")


@pytest.mark.parametrize("placed", [1, 4, 50])
def test_dropped_job_is_rescued_without_limit_after_growing_delays(placed: int) -> None:
    job = replace(some_job(), placed=placed)
    effect = rescue_dropped(job, "maxlen", source="/jobtape/x", time=NOW)
    assert effect is not None
    assert effect.event.name == "requeued"
    assert effect.wait == {1: 0.5, 4: 4.0, 50: 30.0}[placed]
    lost = rescue(job, "lost", source="/jobtape/x", time=NOW, dropped=placed - 1)
    assert lost is not None
    assert lost.event.name == "requeued", "drops do not count towards the limit"
