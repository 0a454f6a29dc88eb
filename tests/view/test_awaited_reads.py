"""Reads of jobs by an event loop from PostgreSQL: the same jobs as in threads, and a thread when something is wrong."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.loop_reads import postgres as loop_reads
from jobtape.view.loop_reads.postgres import AwaitedReads, Driver
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


async def call(function: Callable[[], Driver | None]) -> Driver | None:
    return function()


async def must_not_be_called(_: Callable[[], Driver | None]) -> Driver | None:
    raise AssertionError("a session is opened though none is needed")


async def connect(reads: AwaitedReads) -> None:
    assert reads._needs_session()
    await reads.connect(call)
    await reads.connect(must_not_be_called)


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
async def test_prepared_statements_of_the_pool_are_not_in_the_way(store: Store, reads: AwaitedReads) -> None:
    for _ in range(9):  # psycopg prepares what it executes often
        store.jobs([job_id(1)])
    await connect(reads)
    for _ in range(9):
        assert await reads.jobs([job_id(1)]) == {}


@postgresql_only
async def test_newest_events_are_those_that_threads_read(store: Store, reads: AwaitedReads) -> None:
    await connect(reads)
    assert await reads.newest(0, 2) == store.committed.newest(0, 2)
    first, second = submitted(1, labels={"a": "ä"}), submitted(2)
    record(store, first, second, succeeded(first, result={"sum": 3}))
    for after in (0, *(event.cursor for event in store.committed.newest(0, 9)[1])):
        reach, events = await reads.newest(after, 2)
        wanted_reach, wanted = store.committed.newest(after, 2)
        assert reach == wanted_reach
        assert [vars(event) for event in events] == [vars(event) for event in wanted]
    assert not events


@postgresql_only
async def test_large_events_are_left_to_threads(store: Store, reads: AwaitedReads) -> None:
    await connect(reads)
    record(store, submitted(1, payload={"text": "x" * loop_reads.SMALL}))
    with pytest.raises(NeedsThread):
        await reads.newest(0, 2)


@postgresql_only
async def test_one_session_is_opened_for_callers_that_come_together(reads: AwaitedReads) -> None:
    opened = 0

    async def slowly(function: Callable[[], Driver | None]) -> Driver | None:
        nonlocal opened
        opened += 1
        await asyncio.sleep(0)
        return function()

    await asyncio.gather(*(reads.connect(slowly) for _ in range(3)))
    assert opened == 1
    assert await reads.jobs([job_id(1)]) == {}


@postgresql_only
async def test_session_that_comes_too_late_is_closed(reads: AwaitedReads) -> None:
    late: list[Callable[[], Driver | None]] = []

    async def gives_up(function: Callable[[], Driver | None]) -> Driver | None:
        late.append(function)
        raise ViewUnavailable("too slow")

    with pytest.raises(ViewUnavailable, match="too slow"):
        await reads.connect(gives_up)
    driver = late[0]()
    assert driver is not None
    assert driver.closed
    await connect(reads)
    assert await reads.jobs([job_id(1)]) == {}


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
    await reads.connect(must_not_be_called)
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
    await reads.connect(must_not_be_called)


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
    with pytest.raises(ViewUnavailable, match="jobtape init"):
        await empty.awaited.connect(call)


async def test_pooler_leaves_reads_to_threads(postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "transaction") as (pooled, _):
        store = Store(pooled)
        store.migrate()
        begin(store)
        await store.awaited.connect(call)
        await store.awaited.connect(must_not_be_called)
        with pytest.raises(NeedsThread):
            await store.awaited.jobs([job_id(1)])
        store.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sqlite_is_left_to_quick_reads(store: Store) -> None:
    await store.awaited.connect(must_not_be_called)
    with pytest.raises(NeedsThread):
        await store.awaited.jobs([job_id(1)])
