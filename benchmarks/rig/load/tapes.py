"""Tapes of jobs that were not executed, and how to write them to a broker or into a view."""

import asyncio
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from aiormq import spec

from benchmarks.rig.installation import Installation
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import Link
from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer.folding import fold_batch
from jobtape.schemas import events, ids
from jobtape.schemas.job import Order
from jobtape.schemas.topology import EVENT_KEY, Topology
from jobtape.view.store import Store
from tests.schemas import events_of_a_job as facts

IN_FLIGHT: Final = 500
BATCH: Final = 500
A_SECOND: Final = 10
"""Jobs that are submitted in each second of the tape."""


def job_ids_of(count: int, first: int = 0) -> list[str]:
    """Return ids of ``count`` jobs, A_SECOND of which are submitted each second. ``first``: the number of the first."""
    return [
        str(UUID(int=UUID(ids.first_id_at(facts.EPOCH + timedelta(seconds=n / A_SECOND))).int + n))
        for n in range(first, first + count)
    ]


def tape(job_ids: list[str]) -> Iterator[events.JobEvent]:
    """Yield the events of jobs that start after one second and succeed after two."""
    count = len(job_ids)
    # In each tenth of a second one job is submitted, one starts and one ends.
    for tenth in range(count + 2 * A_SECOND):
        for kind in (0, 1, 2):
            if 0 <= (n := tenth - A_SECOND * kind) < count:
                yield _event(job_ids[n], n, kind)


def messages(job_ids: list[str]) -> Iterator[TapeMessage]:
    """Yield the same events as messages of the tape."""
    return (TapeMessage(n, events.encode(each), "event") for n, each in enumerate(tape(job_ids)))


async def write(made: Installation, job_ids: list[str]) -> None:
    """Publish the events of the jobs."""
    await publish(made.environment["RABBITMQ_URL"], made.topology, tape(job_ids))


async def publish(url: str, topology: Topology, facts_of_jobs: Iterable[events.JobEvent]) -> None:
    """Publish events to the tape, IN_FLIGHT at a time."""
    link = Link(url, name="benchmark")
    link.start()
    channel = ConfirmedChannel(link, topology.events.name)
    rest = iter(facts_of_jobs)
    while window := list(islice(rest, IN_FLIGHT)):
        publishes = [
            channel.publish(
                events.encode(event),
                EVENT_KEY,
                spec.Basic.Properties(delivery_mode=2, message_id=event.id),
                mandatory=True,
            )
            for event in window
        ]
        await asyncio.gather(*publishes)
    await link.close()


def fill(store: Store, count: int) -> list[str]:
    """Fold and commit the tape of ``count`` jobs, and return their ids."""
    assert store.take_lease("benchmark", 600)
    job_ids = job_ids_of(count)
    position: int | None = None
    rest = messages(job_ids)
    while batch := list(islice(rest, BATCH)):
        assert store.commit("benchmark", (1, position), fold_batch(batch, 1, store.jobs), 600)
        position = batch[-1].offset
    return job_ids


def _event(job_id: str, n: int, kind: int) -> events.JobEvent:
    second = n // A_SECOND + kind
    if kind == 0:
        order = Order(type="add", payload={"x": n}, queue="main", labels={"tenant": str(n % 100)}, timeout=60)
        return facts.submitted(second, job_id, order)
    execution = facts.Execution("e", job=job_id)
    return execution.started(second) if kind == 1 else execution.succeeded(second)
