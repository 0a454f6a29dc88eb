"""``jobtape outbox``: forwards the outbox of an application's database, or shows what it cannot forward."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from jobtape.cli import log_output as logs
from jobtape.cli import printing as show
from jobtape.cli.errors import CannotStart
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.lifeline import Lifeline
from jobtape.cli.parts.run import process_name, run_part
from jobtape.cli.parts.start import configuring, fitting_job_types_of, settings_with
from jobtape.outbox import rows
from jobtape.outbox.engine import opened_engine
from jobtape.outbox.forwarder import Forwarder, fault_of
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.schemas.errors import JobtapeError
from jobtape.settings import Settings
from jobtape.telemetry import setup as telemetry

T = TypeVar("T")
SHOWN = 100
PRUNED_AT_ONCE = 1000
NO_URL = "the database of the outbox is not named: give --url, or set JOBTAPE_OUTBOX_URL"


def run_outbox(**options: str | None) -> None:
    """Forward the outbox until SIGTERM or SIGINT. Raises CannotStart."""
    lifeline = Lifeline()
    settings = settings_with(**options)
    logs.configure("outbox", settings.log_level, settings.log_format)
    with configuring():
        telemetry.start("outbox")
    job_types = fitting_job_types_of(settings)
    with _opened(settings) as engine:

        def make() -> _OutboxPart:
            name = f"outbox {process_name()}"
            return _OutboxPart(
                engine, Submitter(settings.rabbitmq_url, settings.topology, job_types, settings.limits, name=name)
            )

        asyncio.run(run_part("outbox", make, settings, lifeline))


class _OutboxPart:
    """A forwarder with a submitter of its own."""

    def __init__(self, engine: Engine, submitter: Submitter) -> None:
        self._submitter = submitter
        self._forwarder = Forwarder(engine, submitter)

    @property
    def fault(self) -> str | None:
        """Why nothing is forwarded; None while rows are."""
        return self._forwarder.fault

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until ``stop`` is set."""
        async with self._submitter:
            await self._forwarder.run(stop)
            await self._forwarder.close()


def show_or_remove(job_id: str | None, *, as_json: bool, outbox_url: str | None) -> int:
    """Remove the job from the outbox, or print its state if ``job_id`` is None. Returns the exit code."""
    settings = settings_with(outbox_url=outbox_url)
    with _opened(settings) as engine:
        if job_id is not None:
            if _in_database(engine, lambda connection: rows.remove(connection, job_id)):
                if as_json:
                    show.print_json({"removed": job_id})
                return 0
            print(f"jobtape: no job {one_line(job_id)} in the outbox that cannot be published", file=sys.stderr)
            return 1
        state = _in_database(engine, rows.state)
        refused = _in_database(engine, lambda connection: rows.refused(connection, SHOWN))
    if as_json:
        show.print_json(
            {
                **asdict(state),
                "items": [{**asdict(row), "submitted_at": row.submitted_at.isoformat()} for row in refused],
            }
        )
        return 0
    oldest = "" if state.oldest is None else f", the first one for {state.oldest:.0f} s"
    print(f"{state.depth} jobs wait{oldest}; {state.refused} of them cannot be published")
    for row in refused:
        print(one_line(f"{row.job_id}  {row.job_type}  {row.submitted_at:%Y-%m-%d %H:%M:%S}  {row.error}"))
    return 0


def prune_inbox(days: int, *, as_json: bool, outbox_url: str | None) -> int:
    """Delete the rows of the inbox that are older than ``days``, some in each transaction. Returns the exit code."""
    before, pruned = datetime.now(UTC) - timedelta(days=days), 0
    with _opened(settings_with(outbox_url=outbox_url)) as engine:
        while page := _in_database(engine, lambda connection: rows.prune_inbox(connection, before, PRUNED_AT_ONCE)):
            pruned += page
    show.print_json({"removed": pruned}) if as_json else print(f"{pruned} rows of the inbox were removed")
    return 0


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    with ExitStack() as opened:
        with configuring():
            engine = opened.enter_context(opened_engine(settings.outbox_url))
            if engine is None:
                raise CannotStart(NO_URL)
        yield engine


def _in_database(engine: Engine, use: Callable[[Connection], T]) -> T:
    try:
        with engine.begin() as connection:
            return use(connection)
    except SQLAlchemyError as error:
        raise JobtapeError(fault_of(error)) from None
