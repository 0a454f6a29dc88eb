"""Forwards the jobs of an outbox to the broker (see the theory of operation in ``jobtape.outbox``)."""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from jobtape.broker.tasks import wait_for_stop
from jobtape.outbox import rows
from jobtape.outbox.rows import OutboxRow, OutboxState, PutBack
from jobtape.outbox.sessions import Transactions
from jobtape.outbox.wakeups import Wakeup
from jobtape.producer.service.submission.order_check import names
from jobtape.producer.service.submission.submitter import Submitter, publish_each
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, QueueFull, TapeMissing, described
from jobtape.schemas.fold import places_no_work
from jobtape.schemas.job import Order
from jobtape.telemetry import tracing

log = logging.getLogger(__name__)

PAGE: Final = 500
POLL_INTERVAL: Final = 1.0
"""Seconds until the table is read again without a notice."""
FIRST_RECHECK, RECHECK_LIMIT = 0.005, 0.5
"""Seconds. The notice comes right before the commit, so rows that are not there yet are looked for again."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""Seconds until a job is published again that was not confirmed."""
REFUSED_DELAY: Final = 60.0
"""Seconds until a job that cannot be published is checked again: another version of the application may know it."""
SETTLE_PAUSES: Final = (0.1, 0.3, 1.0)
"""Seconds between tries to settle the rows of a page."""
MARGIN: Final = 3.0
"""Seconds, beyond the times of the publishes, for which the rows of a page are taken."""
_DRIVERS: Final = frozenset({"aiosqlite", "asyncpg", "psycopg", "psycopg2", "sqlite3"})
JUST_AFTER: Final = timedelta(milliseconds=1)


class _Refused(Exception):
    """The job of a row cannot be published."""


@dataclass(frozen=True, slots=True)
class _Item:
    row: OutboxRow
    order: Order


class Forwarder:
    """Publishes the jobs of the outbox in the database of ``engine`` with ``submitter``, which must be started.

    Any number of forwarders, in any processes, may share an outbox.
    """

    def __init__(self, engine: Engine | AsyncEngine, submitter: Submitter) -> None:
        self._submitter = submitter
        self._transactions = Transactions(engine)
        self._owner = str(uuid4())
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """Why nothing is forwarded; None while rows are, or while there are none."""
        return self._fault

    async def run(self, stop: asyncio.Event) -> None:
        """Forward rows until ``stop`` is set. Rows that are being published are settled before it returns."""
        failures = 0
        with Wakeup() as wakeup:
            while not stop.is_set():
                try:
                    taken = await self.forward_page()
                except Exception as error:  # noqa: BLE001 - forwarding goes on after any fault
                    failures += 1
                    self._note_error(error)
                    await wait_for_stop(stop, delay_after(failures))
                    continue
                failures = 0
                if taken == 0:
                    await self._wait(wakeup, stop)

    async def close(self) -> None:
        """Wait for the last transaction. The engine stays open."""
        await self._transactions.close()

    async def state(self) -> OutboxState:
        """Return how many rows there are. Raises JobtapeError when the database does not answer."""
        try:
            return await self._transactions.run(rows.state)
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own, too
            raise JobtapeError(fault_of(error)) from None

    async def _wait(self, wakeup: Wakeup, stop: asyncio.Event) -> None:
        """Return when there may be rows again."""
        stopping = asyncio.ensure_future(stop.wait())
        notified = asyncio.ensure_future(wakeup.set.wait())
        try:
            await asyncio.wait({stopping, notified}, timeout=POLL_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            notified.cancel()
        if not wakeup.set.is_set():
            return
        # Only here, before a read: a notice that comes while rows are forwarded is for others.
        wakeup.set.clear()
        pause = FIRST_RECHECK
        while pause < RECHECK_LIMIT and not stop.is_set():
            if await self._forward_noticed():
                return
            await wait_for_stop(stop, pause)
            pause *= 2

    async def _forward_noticed(self) -> bool:
        try:
            return await self.forward_page() > 0
        except Exception as error:  # noqa: BLE001 - see ``run``
            self._note_error(error)
            return True

    async def forward_page(self) -> int:
        """Take some rows, publish their jobs and settle them. Returns how many were taken.

        Raises what the driver of the database raises.
        """
        # While the broker is known to be away no row is taken, so that rows are forwarded as soon as it is back.
        watch = self._submitter.watch
        if (fault := watch.broker_fault or watch.tape_fault) is not None:
            self._note(f"the jobs of the outbox wait: {fault}", logging.INFO)  # the link warns
            return 0
        began = time.monotonic()
        limit = self._submitter.limits.publish_timeout
        taken = await self._transactions.run(rows.take, self._owner, 2 * limit + MARGIN, PAGE)
        self._note(None)
        if not taken:
            return 0
        published: list[str] = []
        put_back: list[PutBack] = []
        items = await asyncio.to_thread(self._checked, taken, put_back)
        if put_back:
            log.warning(
                "%d jobs of the outbox cannot be published, and are checked again in %g s (`jobtape outbox --list` "
                "shows them); the first: %s: %s",
                len(put_back),
                REFUSED_DELAY,
                put_back[0].job_id,
                put_back[0].error,
            )

        async def publish(item: _Item) -> None:
            # A process that was frozen must not begin when others may have taken the rows.
            late = time.monotonic() > began + limit
            outcome = _later(item.row, 0.0) if late else await self._publish(item)
            if outcome is None:
                published.append(item.row.job_id)
            else:
                put_back.append(outcome)

        await publish_each(items, publish)
        await self._settle(published, put_back)
        return len(taken)

    async def _settle(self, published: list[str], put_back: list[PutBack]) -> None:
        """Settle rows. A database that is locked for a moment would otherwise let their jobs be published again."""
        for pause in SETTLE_PAUSES:
            try:
                return await self._transactions.run(rows.settle, self._owner, published, put_back)
            except OperationalError as error:
                log.info("rows of the outbox are settled again: %s", fault_of(error))
            await asyncio.sleep(pause)
        await self._transactions.run(rows.settle, self._owner, published, put_back)

    def _checked(self, taken: Iterable[OutboxRow], put_back: list[PutBack]) -> list[_Item]:
        """Return what can be published, and add the rest to ``put_back``. Runs users' validators, so call it in a
        thread.
        """
        items: list[_Item] = []
        for row in taken:
            try:
                items.append(_Item(row, self._order_of(row)))
            except Exception as error:  # noqa: BLE001 - one row must not hold up the others, whatever its faults
                reason = str(error) if isinstance(error, _Refused | JobtapeError) else described(error)
                put_back.append(PutBack(row.job_id, REFUSED_DELAY, row.attempts, reason[:2000]))
        return items

    def _order_of(self, row: OutboxRow) -> Order:
        try:
            order = Order.model_validate_json(row.job_order)
        except ValidationError as error:
            raise _Refused(
                f"the row cannot be read, perhaps because a newer version wrote it: {error.errors()[0]['msg']}"
            ) from None
        job_types = self._submitter.job_types
        if (job_type := job_types.get(order.type)) is None:
            raise _Refused(
                f"there is no job type {order.type!r} here; known: {names(job_types)}. Deploy the module that has it, "
                f"and name it in JOBTAPE_JOBS, or remove the row: jobtape outbox --remove {row.job_id}"
            )
        if order.queue not in self._submitter.topology.queues:
            known = names(self._submitter.topology.queues)
            raise _Refused(f"there is no queue {order.queue!r} here; known: {known}")
        job_type.arguments(order.payload, order.payload_version)
        return order

    async def _publish(self, item: _Item) -> PutBack | None:
        """Publish a job. Returns None when it is on the tape."""
        row, order = item.row, item.order
        if row.attempts > 0 and not places_no_work(order, row.submitted_at):
            # It may have been published. A job that is due later places no work by itself.
            order = order.model_copy(update={"run_at": row.submitted_at + JUST_AFTER})
        try:
            with tracing.within(row.traceparent):
                await self._submitter.submit_order(order, row.job_id, row.submitted_at, causation_id=row.causation_id)
        except (QueueFull, TapeMissing):  # nothing was published
            return _later(row, FIRST_DELAY)
        except BrokerUnavailable:
            return PutBack(row.job_id, delay_after(row.attempts + 1), row.attempts + 1)
        except Exception as error:  # noqa: BLE001 - one row must not hold up the others
            return PutBack(row.job_id, REFUSED_DELAY, row.attempts + 1, described(error)[:2000])
        return None

    def _note_error(self, error: Exception) -> None:
        fault = fault_of(error)
        if not _of_database(error) and fault != self._fault:
            log.error("the outbox is not forwarded", exc_info=error)
        self._note(fault)

    def _note(self, fault: str | None, level: int = logging.WARNING) -> None:
        if fault is not None and fault != self._fault:
            log.log(level, "%s", fault)
        elif fault is None and self._fault is not None:
            log.info("the outbox is forwarded again")
        self._fault = fault


def delay_after(failures: int) -> float:
    """Return the seconds until the next try, after so many failures in a row, at least one."""
    return float(min(FIRST_DELAY * 2 ** min(failures - 1, 10), LONGEST_DELAY))


def _later(row: OutboxRow, delay: float) -> PutBack:
    """Release a row that was not published."""
    return PutBack(row.job_id, delay, row.attempts)


def fault_of(error: Exception) -> str:
    """Return what an error of the outbox's database means, and what to do; of another error that it is one."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(described(cause).split())[:300]
    if isinstance(error, ProgrammingError | OperationalError) and "jobtape_outbox" in text:
        return f"the outbox cannot be read: add outbox_table(metadata) to your tables and run your migrations ({text})"
    if not _of_database(error):
        return f"forwarding the outbox failed ({type(error).__name__}): {text}"
    return f"the database of the outbox does not answer: {text}"


def _of_database(error: Exception) -> bool:
    """Return whether the database is to blame. Drivers raise errors of their own while they connect."""
    return isinstance(error, SQLAlchemyError | OSError) or type(error).__module__.partition(".")[0] in _DRIVERS
