"""What the doctor says of jobs that a policy made the broker drop."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.policies import examine_policies
from jobtape.consumer.folding import fold_archived
from jobtape.schemas.events import JobEvent, encode, submitted
from jobtape.schemas.job import Order
from jobtape.schemas.placement import deferral
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Archived, Store

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A view on SQLite only: these tests do not depend on the database."""
    made = Store(sqlite_url)
    made.migrate()
    yield made
    made.close()


def test_doctor_names_dropped_jobs_when_policies_are_unknown(store: Store) -> None:
    order = Order(type="add", payload={}, queue="default", timeout=30.0)
    event = submitted("01890a5d-ac96-774b-bcce-b302099a8057", order, source="/jobtape/x", time=NOW)
    tape: list[JobEvent] = [event, deferral(event, "expired", source="/jobtape/x", time=NOW)]
    entries = [Archived(cursor, encode(each)) for cursor, each in enumerate(tape, 1)]
    store.create_checkpoint()
    checkpoint = store.take_lease("me", 60)
    assert checkpoint is not None
    batch = replace(fold_archived(entries, store.jobs), offset=1, digest="x")
    assert store.commit("me", (checkpoint.epoch, checkpoint.offset), batch, 60)
    found = Findings()
    examine_policies(found, Settings(management_url="http://127.0.0.1:1"), Topology("doctored"), store)
    dropped, unseen = found.items
    assert (dropped.level, unseen.level) == ("wrong", "note")
    assert "dropped 1 jobs from the queue default (expired), because a policy sets message-ttl" in dropped.what
    assert "list_operator_policies" in (unseen.todo or "")
