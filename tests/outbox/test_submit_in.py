"""A job of a transaction exists if and only if the transaction is committed. No broker is needed for that."""

import io
import logging
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobtape import Context, JobState, Options, PayloadInvalid
from jobtape.schemas.errors import JobtapeError, SubmissionInvalid
from jobtape.schemas.execution import context
from jobtape.view.sql.urls import parse_url
from tests.faults.jobs import add
from tests.outbox.user_database import KINDS, Kind, UserDatabase, outbox, submit

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", KINDS)
async def test_row_is_there_after_commit_and_not_after_rollback(users: UserDatabase, kind: Kind) -> None:
    async with users.transaction(kind) as session:
        job = await submit(session, kind, add, x=1, y=2)
    assert (job.state, job.payload) == (JobState.QUEUED, {"x": 1, "y": 2})
    with suppress(ZeroDivisionError):
        async with users.transaction(kind) as session:
            await submit(session, kind, add, x=3, y=4)
            raise ZeroDivisionError
    with users.engine.begin() as connection:
        assert connection.execute(select(outbox.c.job_id, outbox.c.attempts)).all() == [(job.id, 0)]


async def test_wrong_payload_or_option_writes_no_row(users: UserDatabase) -> None:
    with Session(users.engine) as session, session.begin():
        with pytest.raises(PayloadInvalid):
            add.submit_in_sync(session, x="one", y=2)
        with pytest.raises(SubmissionInvalid, match="timeout"):
            add.submit_in_sync_with(session, Options(timeout=-1), x=1, y=2)
        with pytest.raises(SubmissionInvalid, match="takes no idempotency key"):
            add.submit_in_sync_with(session, Options(idempotency_key="k"), x=1, y=2)
    assert users.rows(outbox) == 0


async def test_wrong_kind_of_session_is_named(users: UserDatabase) -> None:
    async with AsyncSession(users.async_engine) as session:
        with pytest.raises(JobtapeError, match="await submit_in"):
            add.submit_in_sync(session, x=1, y=2)
    with Session(users.engine) as other, pytest.raises(JobtapeError, match="submit_in_sync"):
        await add.submit_in(other, x=1, y=2)
    with pytest.raises(JobtapeError, match="this is a str"):
        await add.submit_in("sqlite://", x=1, y=2)


async def test_delay_counts_from_submission(users: UserDatabase) -> None:
    with Session(users.engine) as session, session.begin():
        job = add.submit_in_sync_with(session, Options(delay=60), x=1, y=2)
    assert job.state is JobState.SCHEDULED
    assert job.run_at is not None
    assert job.submitted_at is not None
    assert job.run_at - job.submitted_at == timedelta(seconds=60)


async def test_job_of_handler_has_its_correlation_id_and_cause(users: UserDatabase) -> None:
    within = Context("job", "add", 1, 1, logging.getLogger("test"), lambda _: None, correlation_id="c", event_id="e")
    token = context.current.set(within)
    try:
        with Session(users.engine) as session, session.begin():
            job = add.submit_in_sync(session, x=1, y=2)
    finally:
        context.current.reset(token)
    assert job.correlation_id == "c"
    with users.engine.begin() as connection:
        assert connection.scalar(select(outbox.c.causation_id)) == "e"


async def test_alembic_migration_of_the_tables_is_complete(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``alembic revision --autogenerate`` writes it, and finds no difference afterwards."""
    monkeypatch.chdir(tmp_path)
    url = parse_url(database_url)
    config = Config("alembic.ini", stdout=io.StringIO())
    command.init(config, "migrations")
    config.set_main_option("sqlalchemy.url", url.render_as_string(hide_password=False).replace("%", "%%"))
    env = tmp_path / "migrations" / "env.py"
    ours = "from tests.outbox.user_database import metadata as target_metadata"
    # Its ``fileConfig`` would disable the loggers of the tests after this one.
    text = env.read_text().replace("fileConfig(config.config_file_name)", "pass")
    env.write_text(text.replace("target_metadata = None", ours))
    command.revision(config, "outbox and inbox", autogenerate=True)
    command.upgrade(config, "head")
    command.check(config)
    with Session(create_engine(url)) as session, session.begin():
        job = add.submit_in_sync(session, x=1, y=2)
        assert session.scalar(select(outbox.c.job_id)) == job.id


def test_submission_needs_the_table(sqlite_url: str) -> None:
    with Session(create_engine(sqlite_url)) as session, pytest.raises(Exception, match="no such table: jobtape_outbox"):
        add.submit_in_sync(session, x=1, y=2)
