"""Which messages of the tape the projector gathers into one batch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from jobtape.broker.stream_reader import StreamReader
from jobtape.consumer.projector.projector import MOST_LINGERING, gathered
from jobtape.schemas.events import JobEvent, encode
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve
from jobtape.schemas.queueing.gates import Gates
from tests.consumer.installation import Rig, order_event
from tests.waiting import LIMIT

pytestmark = pytest.mark.anyio

FOREVER = 100 * LIMIT
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def reading(rig: Rig) -> AsyncIterator[StreamReader]:
    """Read the tape from its beginning; fail if it takes too long."""
    async with asyncio.timeout(LIMIT), StreamReader(await rig.link.connection(), rig.topology.log.name, "first") as it:
        yield it


def end_of(rig: Rig, submission: JobEvent) -> JobEvent:
    """Return an event that ends the job."""
    return cancelled(evolve(None, submission), source=rig.topology.source, time=datetime.now(UTC))


async def test_submission_waits_for_the_end_of_its_job(rig: Rig) -> None:
    submission = order_event(rig.topology, "add")
    end = end_of(rig, submission)
    async with reading(rig) as reader:
        gathering = asyncio.create_task(gathered(reader, FOREVER))
        await rig.publisher.publish(submission)
        await rig.publisher.publish(end)
        assert [message.body for message in await gathering] == [encode(submission), encode(end)]


async def test_barrier_ends_the_wait(rig: Rig) -> None:
    async with reading(rig) as reader:
        gathering = asyncio.create_task(gathered(reader, FOREVER))
        await rig.publisher.publish(order_event(rig.topology, "add"))
        await rig.publisher.publish_barrier("me", 1)
        assert [message.key for message in await gathering] == ["event", "barrier"]


@pytest.mark.parametrize("kind", ["end", "gated", "delayed", "barrier"])
async def test_other_messages_do_not_wait(rig: Rig, kind: str) -> None:
    async with reading(rig) as reader:
        if kind == "barrier":
            await rig.publisher.publish_barrier("me", 1)
        elif kind == "end":
            await rig.publisher.publish(end_of(rig, order_event(rig.topology, "add")))
        elif kind == "gated":
            await rig.publisher.publish(order_event(rig.topology, "add", gates=Gates(ordering_key="k")))
        else:
            await rig.publisher.publish(order_event(rig.topology, "add", run_at=LATER))
        assert len(await gathered(reader, FOREVER)) == 1


async def test_many_submissions_do_not_wait(rig: Rig) -> None:
    async with reading(rig) as reader:
        for _ in range(MOST_LINGERING + 1):
            await rig.publisher.publish(order_event(rig.topology, "add"))
        assert len(await gathered(reader, FOREVER)) == MOST_LINGERING + 1


async def test_wait_of_a_submission_has_an_end(rig: Rig) -> None:
    async with reading(rig) as reader:
        await rig.publisher.publish(order_event(rig.topology, "add"))
        assert len(await gathered(reader, 0.001)) == 1


async def test_interruption_ends_the_wait(rig: Rig) -> None:
    async with reading(rig) as reader:
        gathering = asyncio.create_task(gathered(reader, FOREVER))
        await rig.publisher.publish(order_event(rig.topology, "add"))
        reader.interrupt()
        assert len(await gathering) <= 1
