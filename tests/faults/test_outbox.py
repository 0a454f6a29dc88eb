"""Tests that an outbox forwards every committed job once when the broker or the database goes away meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from jobtape.outbox.forwarder import Forwarder
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.schemas.errors import JobtapeError
from jobtape.settings import read_settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.databases import SessionPostgres, own_database
from tests.faults.jobs import add
from tests.faults.load import sync_declarations
from tests.faults.scale import SCALE, scaled
from tests.ledger import Ledger
from tests.outbox.user_database import UserDatabase, outbox, user_database
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 * max(1.0, SCALE))]


@asynccontextmanager
async def forwarding(rig: Rig, users: UserDatabase) -> AsyncIterator[Forwarder]:
    """Run a forwarder, which gives up a publish after a second."""
    limits = read_settings(publish_timeout=1.0).limits
    async with Submitter(rig.url, rig.topology, {"add": add}, limits, name="outbox") as submitter:
        forwarder, stop = Forwarder(users.engine, submitter), asyncio.Event()
        task = asyncio.create_task(forwarder.run(stop))
        yield forwarder
        stop.set()
        await task
        await forwarder.close()


async def progress(rig: Rig) -> None:
    """Wait until further jobs are on the tape."""
    before = len(rig.events)
    await eventually(lambda: len(rig.events) > before + 20, 60)


@asynccontextmanager
async def orders(users: UserDatabase, ids: list[str]) -> AsyncIterator[None]:
    """Submit jobs in transactions until the end of the block."""
    ending = asyncio.Event()

    def transact() -> str:
        with Session(users.engine) as session, session.begin():
            return add.submit_in_sync(session, x=1, y=1).id

    async def client() -> None:
        while not ending.is_set():
            ids.append(await asyncio.to_thread(transact))

    task = asyncio.create_task(client())
    try:
        yield
    finally:
        ending.set()
        await task


async def test_committed_jobs_run_when_the_broker_is_killed(
    node: PrivateNode, node_rig: Rig, view: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rig, ids = node_rig, list[str]()
    shop = f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}"
    with user_database(shop) as users:
        async with rig.projector(view), rig.worker(add, concurrency=10), forwarding(rig, users) as forwarder:
            await sync_declarations(node)
            async with orders(users, ids):
                for _ in range(scaled(1)):
                    await progress(rig)
                    await asyncio.to_thread(node.kill)
                    await eventually(lambda: "the jobs of the outbox wait" in (forwarder.fault or ""))
                    await asyncio.to_thread(node.start)
                    await eventually(lambda: forwarder.fault is None)
            await eventually(lambda: users.rows(outbox) == 0, 60)
            for job_id in ids:
                await rig.outcome(job_id, 60)
            report = await Checker(rig.url, rig.topology).check(view, Ledger(ok=ids))
        await users.async_engine.dispose()
    assert not report.problems, str(report)
    assert report.jobs == len(ids)
    print(report)


async def test_each_committed_job_is_forwarded_when_the_database_is_away(rig: Rig, postgres: SessionPostgres) -> None:
    """Sessions end between the publish and the deletion of the rows, too."""
    ids: list[str] = []
    with own_database(postgres.url) as database, user_database(database.url) as users:
        with Session(users.engine) as session, session.begin():
            ids += [add.submit_in_sync(session, x=n, y=1).id for n in range(scaled(50))]
        left = [2]

        def end_sessions(*context: object) -> None:
            if left[0] and str(context[2]).startswith("DELETE FROM jobtape_outbox"):
                left[0] -= 1
                database.end_sessions()

        event.listen(users.engine, "before_cursor_execute", end_sessions)
        async with forwarding(rig, users) as forwarder:
            await eventually(partial(_is_empty, forwarder), 60)
            await eventually(lambda: forwarder.fault is None)
        await users.async_engine.dispose()
    assert left == [0]
    await eventually(lambda: {each.subject for each in rig.events} == set(ids))
    assert await rig.depth() == len(ids)


async def _is_empty(forwarder: Forwarder) -> bool:
    try:
        return (await forwarder.state()).depth == 0
    except JobtapeError:  # its session may have ended, too
        return False
