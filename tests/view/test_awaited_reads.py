"""Reads of jobs by an event loop from PostgreSQL: the same jobs as in threads, and a thread when something is wrong."""

import asyncio

import psycopg
import pytest

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.loop_reads import postgres as loop_reads
from jobtape.view.loop_reads.postgres import AwaitedReads
from jobtape.view.loop_reads.sqlite import NeedsThread
from jobtape.view.store import Store
from tests.databases import SessionPostgres
from tests.poolers import pooled_database
from tests.view.samples import begin, job_id, postgresql_only, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_reads, "PAUSE", 0.0)


@pytest.fixture
def reads(store: Store) -> AwaitedReads:
    return store.awaited


async def connect(reads: AwaitedReads) -> None:
    assert reads.needs_session()
    reads.use(reads.database.own_session())
    assert not reads.needs_session()


@postgresql_only
async def test_jobs_are_those_that_threads_read(store: Store, reads: AwaitedReads) -> None:
    with pytest.raises(NeedsThread):
        await reads.jobs([job_id(1)])
    await connect(reads)
    first, second = submitted(1, labels={"a": "ä"}), submitted(2)
    assert await reads.jobs([first.subject]) == {}
    record(store, first, second, succeeded(first, result={"sum": 3}))
    wanted = [first.subject, second.subject, job_id(3)]
    found = await reads.jobs(wanted)
    assert len(found) == 2
    assert found == store.jobs(wanted) == {each: store.job(each) for each in found}


@postgresql_only
async def test_ended_session_is_replaced(store: Store, reads: AwaitedReads, database_url: str) -> None:
    await connect(reads)
    assert await reads.jobs([job_id(1)]) == {}
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(NeedsThread):
        await reads.jobs([job_id(1)])
    await connect(reads)
    assert await reads.jobs([job_id(1)]) == {}


@postgresql_only
async def test_failed_session_is_not_replaced_at_once(
    store: Store, reads: AwaitedReads, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_reads, "PAUSE", 600.0)
    await connect(reads)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("ALTER TABLE jobs RENAME TO away")
        with pytest.raises(NeedsThread):
            await reads.jobs([job_id(1)])
        admin.execute("ALTER TABLE away RENAME TO jobs")
    assert not reads.needs_session()
    with pytest.raises(NeedsThread):
        await reads.jobs([job_id(1)])


@postgresql_only
async def test_slow_answer_is_not_waited_for(
    store: Store, reads: AwaitedReads, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connect(reads)
    record(store, submitted(1))
    with psycopg.connect(database_url) as locks:
        locks.execute("LOCK TABLE jobs")
        with monkeypatch.context() as patched:
            patched.setattr(loop_reads, "SLOW", 0.01)
            for _ in range(2):
                with pytest.raises(NeedsThread):
                    await reads.jobs([job_id(1)])
        locks.rollback()

    async def answered() -> bool:
        try:
            return job_id(1) in await reads.jobs([job_id(1)])
        except NeedsThread:
            return False

    await eventually(answered)
    assert not reads.needs_session()


@postgresql_only
async def test_cancelled_caller_leaves_a_session_that_works(
    store: Store, reads: AwaitedReads, database_url: str
) -> None:
    await connect(reads)
    with psycopg.connect(database_url) as locks:
        locks.execute("LOCK TABLE jobs")
        caller = asyncio.create_task(reads.jobs([job_id(1)]))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait({caller})
        locks.rollback()
    assert caller.cancelled()
    await eventually(lambda: reads._reading is None)
    assert await reads.jobs([job_id(1)]) == {}


@postgresql_only
def test_another_loop_needs_another_session(store: Store, reads: AwaitedReads) -> None:
    async def read() -> None:
        with pytest.raises(NeedsThread):
            await reads.jobs([job_id(1)])
        await connect(reads)
        assert await reads.jobs([job_id(1)]) == {}

    for _ in range(2):
        asyncio.run(read())


@postgresql_only
async def test_tables_of_another_version_are_not_read(empty: Store) -> None:
    assert empty.awaited.needs_session()
    with pytest.raises(ViewUnavailable, match="jobtape init"):
        empty.awaited.database.own_session()


async def test_pooler_leaves_reads_to_threads(postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "transaction") as (pooled, _):
        store = Store(pooled)
        store.migrate()
        begin(store)
        store.awaited.use(store.awaited.database.own_session())
        assert not store.awaited.needs_session()
        with pytest.raises(NeedsThread):
            await store.awaited.jobs([job_id(1)])
        store.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sqlite_is_left_to_quick_reads(store: Store) -> None:
    assert not store.awaited.needs_session()
    with pytest.raises(NeedsThread):
        await store.awaited.jobs([job_id(1)])
