"""The forwarder publishes each committed job, and one job for one row, whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from jobtape.broker import publisher
from jobtape.outbox import forwarder as forwarding
from jobtape.outbox import rows, wakeups
from jobtape.outbox.forwarder import Forwarder
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.schemas.job import JobState
from jobtape.settings import read_settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.faults.jobs import add, nap
from tests.outbox.user_database import KINDS, Kind, UserDatabase, outbox, submit
from tests.waiting import eventually
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(forwarder: Forwarder) -> AsyncIterator[Forwarder]:
    stop = asyncio.Event()
    task = asyncio.create_task(forwarder.run(stop))
    try:
        yield forwarder
    finally:
        stop.set()
        await task
        await forwarder.close()


async def submitted_in(users: UserDatabase, n: int) -> list[str]:
    with Session(users.engine) as session, session.begin():
        return [add.submit_in_sync(session, x=i, y=1).id for i in range(n)]


def make_due(users: UserDatabase, **values: int) -> None:
    """End the time for which the rows are taken."""
    with users.engine.begin() as connection:
        connection.execute(update(outbox).values(due=0, **values))


@pytest.mark.parametrize("kind", KINDS)
async def test_committed_job_is_forwarded_at_its_commit(
    users: UserDatabase, submitter: Submitter, rig: Rig, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when the table is read the next time."""
    monkeypatch.setattr(forwarding, "POLL_INTERVAL", 3600.0)
    async with running(Forwarder(users.async_engine if kind.startswith("async") else users.engine, submitter)):
        async with users.transaction(kind) as session:
            first = await submit(session, kind, add, x=1, y=2)
        await eventually(lambda: rig.of(first.id))
        async with users.transaction(kind) as session:
            second = await submit(session, kind, add, x=3, y=4)
        await eventually(lambda: rig.of(second.id))
        await eventually(lambda: users.rows(outbox) == 0)
    assert await rig.depth() == 2


async def test_wolverine_3353_nothing_is_sent_before_the_commit(
    users: UserDatabase, forwarder: Forwarder, rig: Rig
) -> None:
    """JasperFx/wolverine#3353: a message was sent while its transaction was still open."""
    with Session(users.engine) as session, session.begin():
        job = add.submit_in_sync(session, x=1, y=2)
        session.flush()
        assert await forwarder.forward_page() == 0
        assert await rig.depth() == 0
    assert await forwarder.forward_page() == 1
    await eventually(lambda: rig.names(job.id) == ["submitted"])


async def test_wolverine_689_no_row_stays_after_forwarding(users: UserDatabase, forwarder: Forwarder, rig: Rig) -> None:
    """JasperFx/wolverine#689: messages that were sent stayed in the outbox."""
    ids = await submitted_in(users, 20)
    assert await forwarder.forward_page() == 20
    assert users.rows(outbox) == 0
    await eventually(lambda: {event.subject for event in rig.events} == set(ids))


async def test_job_that_was_published_before_the_forwarder_died_is_one_job(
    users: UserDatabase, forwarder: Forwarder, rig: Rig, store: Store
) -> None:
    """The row was not deleted, so the job is published again. Its work is not placed again."""
    (job_id,) = await submitted_in(users, 1)
    block, unblock = _no_deletes(users)
    with users.engine.begin() as connection:
        for statement in block:
            connection.execute(text(statement))
    with pytest.raises(Exception, match="no deletes"):
        await forwarder.forward_page()
    await eventually(lambda: rig.names(job_id) == ["submitted"])
    with users.engine.begin() as connection:
        connection.execute(text(unblock))
    assert await forwarder.forward_page() == 0, "the row is still taken"
    make_due(users)
    assert await forwarder.forward_page() == 1
    await rig.read_to_end()
    assert rig.names(job_id) == ["submitted", "submitted"]
    assert users.rows(outbox) == 0
    async with rig.projector(store):
        await eventually(lambda: _cursor(store, job_id))
        assert await rig.depth() == 1
        async with rig.worker(add):
            await rig.outcome(job_id)
    assert rig.steps(job_id) == ["submitted", "submitted", "succeeded"]
    assert len({event.id for event in rig.events if event.name == "submitted"}) == 1


async def test_job_that_was_not_published_before_the_forwarder_died_runs(
    users: UserDatabase, forwarder: Forwarder, rig: Rig, store: Store
) -> None:
    (job_id,) = await submitted_in(users, 1)
    make_due(users, attempts=1)
    assert await forwarder.forward_page() == 1
    assert await rig.depth() == 0
    async with rig.projector(store), rig.worker(add):
        await rig.outcome(job_id)
    assert rig.steps(job_id) == ["submitted", "placed", "succeeded"]


async def test_row_that_cannot_be_published_does_not_hold_up_others(
    users: UserDatabase, forwarder: Forwarder, rig: Rig, submitter: Submitter
) -> None:
    with Session(users.engine) as session, session.begin():
        gone = nap.submit_in_sync(session, seconds=0.0)
        misfit = add.submit_in_sync(session, x=1, y=2)
        broken = add.submit_in_sync(session, x=1, y=2)
        good = add.submit_in_sync(session, x=1, y=2)
    with users.engine.begin() as connection:
        order = connection.scalar(text("SELECT job_order FROM jobtape_outbox WHERE job_id = :id"), {"id": misfit.id})
        for job, value in ((misfit, order.replace('"x":1', '"x":"one"')), (broken, "{}")):
            connection.execute(update(outbox).where(outbox.c.job_id == job.id).values(job_order=value))
    known = submitter.job_types.pop("nap")
    assert await forwarder.forward_page() == 4
    await eventually(lambda: rig.names(good.id) == ["submitted"])
    state = await forwarder.state()
    assert (state.depth, state.refused) == (3, 3)
    with users.engine.begin() as connection:
        errors = {row.job_id: row.error for row in connection.execute(outbox.select())}
    assert "there is no job type 'nap' here" in errors[gone.id]
    assert "jobtape outbox --remove" in errors[gone.id]
    assert "x: " in errors[misfit.id]
    assert "cannot be read" in errors[broken.id]

    submitter.job_types["nap"] = known
    make_due(users)
    await forwarder.forward_page()
    await eventually(lambda: rig.names(gone.id) == ["submitted"], what="it is published when its type is back")
    assert (await forwarder.state()).depth == 2


async def test_rows_stay_while_the_broker_is_away(users: UserDatabase, rig: Rig, submitter: Submitter) -> None:
    (job_id,) = await submitted_in(users, 1)
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    away = Submitter(url, rig.topology, submitter.job_types, read_settings().limits)
    async with away, running(Forwarder(users.engine, away)) as forwarder:
        assert "the jobs of the outbox wait" in await eventually(lambda: forwarder.fault)
        state = await forwarder.state()
        assert state.depth == 1
        assert state.oldest is not None
    async with running(Forwarder(users.engine, submitter)) as forwarder:
        await eventually(lambda: rig.of(job_id))
        assert forwarder.fault is None


async def test_full_queue_leaves_the_row_as_it_was(
    users: UserDatabase, forwarder: Forwarder, submitter: Submitter, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = await submitted_in(users, 1)
    monkeypatch.setattr(publisher, "FULL_PAUSE", 3600.0)
    submitter.publisher.note_refusal("default", DeliveryError(None, Basic.Nack()))
    assert await forwarder.forward_page() == 1
    await rig.read_to_end()
    assert rig.of(job_id) == []
    make_due(users)
    monkeypatch.setattr(submitter.publisher, "_full", {})
    assert await forwarder.forward_page() == 1
    await eventually(lambda: rig.names(job_id) == ["submitted"])
    assert await rig.depth() == 1, "it was published as for the first time"


async def test_forwarders_share_an_outbox(users: UserDatabase, submitter: Submitter, rig: Rig) -> None:
    async with (
        running(Forwarder(users.engine, submitter)),
        running(Forwarder(users.async_engine, submitter)),
        running(Forwarder(users.engine, submitter)),
    ):
        ids = [job_id for _ in range(10) for job_id in await submitted_in(users, 30)]
        await eventually(lambda: users.rows(outbox) == 0)
    await rig.read_to_end()
    assert sorted(event.subject for event in rig.events) == sorted(ids)
    assert await rig.depth() == len(ids)


async def test_missing_table_is_a_fault_that_says_what_to_do(users: UserDatabase, submitter: Submitter) -> None:
    outbox.drop(users.engine)
    async with running(Forwarder(users.engine, submitter)) as forwarder:
        fault = await eventually(lambda: forwarder.fault)
        assert "add outbox_table(metadata) to your tables and run your migrations" in fault
        outbox.create(users.engine)
        await eventually(lambda: forwarder.fault is None)


async def test_notice_during_a_page_with_rows_is_kept(
    users: UserDatabase, submitter: Submitter, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice comes before the commit: the read right after the page may find nothing yet."""
    monkeypatch.setattr(forwarding, "POLL_INTERVAL", 3600.0)
    (late,) = await submitted_in(users, 1)
    with users.engine.begin() as connection:
        row = connection.execute(outbox.select()).mappings().one()
        connection.execute(outbox.delete())
    (first,) = await submitted_in(users, 1)
    forwarder = Forwarder(users.engine, submitter)
    forward_page = forwarder.forward_page
    pages: list[int] = []

    async def page() -> int:
        taken = await forward_page()
        pages.append(taken)
        if taken and len(pages) == 1:
            for each in wakeups._waiting:
                each.set.set()
        elif len(pages) == 2:
            with users.engine.begin() as connection:
                connection.execute(outbox.insert().values(**row))  # without a notice of its own
        return taken

    monkeypatch.setattr(forwarder, "forward_page", page)
    async with running(forwarder):
        await eventually(lambda: rig.of(first) and rig.of(late))


async def test_error_that_is_not_the_databases_is_named(
    users: UserDatabase, submitter: Submitter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("no such argument")

    monkeypatch.setattr(rows, "take", broken)
    async with running(Forwarder(users.engine, submitter)) as forwarder:
        fault = await eventually(lambda: forwarder.fault)
    assert fault.startswith("forwarding the outbox failed (TypeError): ") and "no such argument" in fault
    assert any(record.exc_info for record in caplog.records)


def test_delay_grows_to_a_limit() -> None:
    assert [forwarding.delay_after(n) for n in (1, 2, 3, 5000)] == [1.0, 2.0, 4.0, forwarding.LONGEST_DELAY]


def _cursor(store: Store, job_id: str) -> bool:
    job = store.job(job_id)
    return job is not None and job.state is JobState.QUEUED


def _no_deletes(users: UserDatabase) -> tuple[list[str], str]:
    """Return statements that make deletions from the outbox fail, and one that allows them again."""
    if users.engine.dialect.name == "sqlite":
        block = "CREATE TRIGGER keep BEFORE DELETE ON jobtape_outbox BEGIN SELECT RAISE(ABORT, 'no deletes'); END"
        return [block], "DROP TRIGGER keep"
    function = (
        "CREATE FUNCTION keep() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no deletes'; END $$ LANGUAGE plpgsql"
    )
    trigger = "CREATE TRIGGER keep BEFORE DELETE ON jobtape_outbox FOR EACH ROW EXECUTE FUNCTION keep()"
    return [function, trigger], "DROP TRIGGER keep ON jobtape_outbox"
