"""The pruner removes jobs that ended long ago, when the tape is folded up to its end."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from jobtape.schemas.events import JobEvent
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.consumer.projector.dispatch.test_job_placer import redriven
from tests.view.samples import NOON, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

RETENTION = 30.0
SHORT = 0.4
LONG_AGO = NOON - timedelta(days=365)


async def publish(rig: Rig, *tape: JobEvent) -> None:
    for event in tape:
        await rig.publisher.publish(event)


async def test_job_whose_redrive_is_not_folded_yet_is_kept(rig: Rig, store: Store) -> None:
    old, other = submitted(1, LONG_AGO), submitted(2, LONG_AGO)
    async with rig.projector(store):
        await publish(rig, old, succeeded(old), other, succeeded(other))
        await eventually(lambda: (job := store.job(other.subject)) and job.final)
    await publish(rig, *(submitted(n, queue="nowhere") for n in range(3, 1000)))
    await publish(rig, redriven(old.subject, 2, rig.topology.source, "add"))
    async with rig.projector(store, job_retention=RETENTION):
        await eventually(lambda: store.retention.gone([other.subject]), what="a round has removed the other job")
        job = store.job(old.subject)
        assert job is not None
        assert (job.run, job.state) == (2, "queued")


async def test_pruner_removes_nothing_during_an_import(rig: Rig, store: Store) -> None:
    old = submitted(1, LONG_AGO)
    async with rig.projector(store, job_retention=SHORT):
        await publish(rig, *(event.model_copy(update={"imported": "x"}) for event in (old, succeeded(old))))
        await eventually(lambda: (job := store.job(old.subject)) and job.final)
        before = rounds(store)
        await eventually(lambda: rounds(store) >= before + 3, what="two whole rounds have ended")
        assert store.job(old.subject) is not None
        await publish(rig, *(submitted(n, queue="nowhere") for n in range(2, 102)))
        await eventually(lambda: store.job(old.subject) is None, what="the import is over")


def rounds(store: Store) -> int:
    """Return how many rounds have begun, counted by the barriers that they wait for."""
    with store._database.reading() as connection:
        return (
            connection.execute(text("SELECT max(seq) FROM barriers WHERE process LIKE 'active-projector-%'")).scalar()
            or 0
        )
