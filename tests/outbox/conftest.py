"""Fixtures: a user's database, a rig, and a submitter for forwarders."""

from collections.abc import AsyncIterator

import pytest

from jobtape.outbox.forwarder import Forwarder
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.schemas.topology import Topology
from jobtape.settings import read_settings
from tests.consumer.installation import Rig
from tests.faults import jobs
from tests.outbox.user_database import UserDatabase, user_database
from tests.waiting import eventually


@pytest.fixture
async def users(database_url: str) -> AsyncIterator[UserDatabase]:
    """A user's database, on each kind."""
    with user_database(database_url) as opened:
        yield opened
        await opened.async_engine.dispose()


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """A rig on the session's broker, which a test must not break."""
    async with Rig(broker_url, topology) as opened:
        yield opened


@pytest.fixture
async def submitter(rig: Rig) -> AsyncIterator[Submitter]:
    """A submitter that knows ``add`` and ``nap``, and is connected."""
    job_types = {each.name: each for each in (jobs.add, jobs.nap)}
    async with Submitter(rig.url, rig.topology, job_types, read_settings().limits, name="outbox") as opened:
        await eventually(lambda: opened.watch.broker_fault is None and opened.watch.tape_fault is None)
        yield opened


@pytest.fixture
async def forwarder(users: UserDatabase, submitter: Submitter) -> AsyncIterator[Forwarder]:
    """A forwarder with the synchronous engine, which does not run by itself."""
    made = Forwarder(users.engine, submitter)
    yield made
    await made.close()
