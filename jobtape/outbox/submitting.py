"""Submits jobs into the outbox: checks the payload, makes the id and inserts one row in the user's transaction."""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection

from jobtape.outbox import rows
from jobtape.outbox.rows import OutboxRow
from jobtape.outbox.sessions import AsyncTransaction, SyncTransaction, is_async, within, within_async
from jobtape.outbox.tables import OUTBOX
from jobtape.outbox.wakeups import wake_at_commit
from jobtape.process import running
from jobtape.producer.service.ids import new_job_id, utc_now
from jobtape.producer.service.submission.limits import Limits
from jobtape.producer.service.submission.order_check import order_for
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.schemas.errors import JobtapeError, SubmissionInvalid
from jobtape.schemas.events import submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.submission import Submission
from jobtape.settings import read_settings
from jobtape.telemetry import tracing

Checked = tuple[Submission, str | None, str | None]
"""A submission, its idempotency key and its causation id."""


async def submit_in(session: AsyncTransaction, job_type: JobTypeSpec, checked: Checked) -> Job:
    """Insert the row. Raises JobtapeError for a synchronous session, and what ``submit_in_sync`` raises."""
    if not is_async(session):
        raise JobtapeError("nothing was submitted: call submit_in_sync(session, ...) with a synchronous session")
    row, job = _row(job_type, checked)
    await within_async(session, OUTBOX, partial(_insert, row=row))
    return job


def submit_in_sync(session: SyncTransaction, job_type: JobTypeSpec, checked: Checked) -> Job:
    """Insert the row. Raises JobtapeError for an asynchronous session, PayloadInvalid, SubmissionInvalid, and errors of
    the database.
    """
    if is_async(session):
        raise JobtapeError("nothing was submitted: `await submit_in(session, ...)` with an asynchronous session")
    row, job = _row(job_type, checked)
    within(session, OUTBOX, partial(_insert, row=row))
    return job


def _insert(connection: Connection, row: OutboxRow) -> None:
    rows.add(connection, row)
    wake_at_commit(connection)


def _row(job_type: JobTypeSpec, checked: Checked) -> tuple[OutboxRow, Job]:
    submission, key, causation_id = checked
    if key is not None:
        message = (
            "a submission in a transaction takes no idempotency key: make the transaction itself safe to repeat, by a "
            "unique column or by ctx.once"
        )
        raise SubmissionInvalid(message, [{"loc": ("idempotency_key",), "msg": message}])
    job_types, limits = _known(job_type)
    now, job_id = utc_now(), new_job_id()
    order = order_for(submission, job_types, limits, now)
    job = evolve(None, submitted(job_id, order, source="outbox", time=now))
    return OutboxRow(job_id, order.type, order.model_dump_json(), causation_id, now, 0, tracing.traceparent()), job


def _known(job_type: JobTypeSpec) -> tuple[Mapping[str, Any], Limits]:
    """Return job types and limits of the installation in this process. The forwarder checks by its own again."""
    found: Mapping[str, Any] = {}
    try:
        installation = running.installation_for(job_type.name)
    except JobtapeError:  # none runs here, and none is needed
        return {job_type.name: job_type}, _limits()
    if isinstance(installation, running.LoopInstallation):
        found = installation.submitter.job_types
        if isinstance(installation.submitter, Submitter):
            return {**found, job_type.name: job_type}, installation.submitter.limits
    return {**found, job_type.name: job_type}, _limits()


@cache
def _limits() -> Limits:
    return read_settings().limits
