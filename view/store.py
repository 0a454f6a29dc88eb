"""The way into the view. Each call is one read or one transaction, and blocks.

Every call raises ViewUnavailable, with what to do, when the database does not answer, is locked, or has no tables or
tables of another version. After a write that raised it, the outcome is unknown, since the connection may have broken
during the answer: read the checkpoint again.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import bindparam, select, update

from jobtape.schemas.cursor import FIRST_EPOCH
from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.job import Job
from jobtape.view import checkpoint, migrate, tables
from jobtape.view.fold_session import FoldSession
from jobtape.view.jobs import queries as jobs
from jobtape.view.jobs.flows import Flows
from jobtape.view.jobs.job_search import JobSearcher
from jobtape.view.jobs.open_jobs import OpenJobs
from jobtape.view.jobs.past import PastView
from jobtape.view.jobs.statistics import Statistics
from jobtape.view.loop_reads.postgres import AwaitedReads
from jobtape.view.loop_reads.sqlite import NeedsThread, QuickReads
from jobtape.view.maintenance.rebuilds import RebuildStore
from jobtape.view.maintenance.retention import JobRetention
from jobtape.view.maintenance.tasks import Tasks
from jobtape.view.records.api_keys import ApiKey, ApiKeys
from jobtape.view.records.dead_messages import DeadMessages
from jobtape.view.records.idempotency_keys import Claim, IdempotencyKeys, KeyedSubmission, KeyState
from jobtape.view.records.rates import Rates
from jobtape.view.records.worker_signs import SeenWorker, WorkerSigns
from jobtape.view.rows import history_from_row, job_from_driver, job_from_row, storable
from jobtape.view.sql import bulk, leases
from jobtape.view.sql.database import Database
from jobtape.view.sql.roles import TIMEOUT
from jobtape.view.subscribers.committed import CommittedEvent, CommittedHistory, CommittedPage
from jobtape.view.subscribers.positions import Positions
from jobtape.view.subscribers.relay_row import RelayRow
from jobtape.view.subscribers.webhooks import Webhook, Webhooks
from jobtape.view.tallies import ALWAYS
from jobtape.view.values import (
    ByJob,
    Checkpoint,
    DeadMessage,
    Differences,
    DueJob,
    FoldedBatch,
    FoundJobs,
    Gap,
    HeldJob,
    HistoryRange,
    HistoryRow,
    JobQuery,
    NamedPosition,
    PastPage,
    Position,
    RawMessage,
    RebuildState,
    RelayState,
    Subscription,
    UnreadableRow,
    history_row,
)

__all__ = [
    "ApiKey",
    "ByJob",
    "Checkpoint",
    "Claim",
    "CommittedEvent",
    "CommittedPage",
    "DeadMessage",
    "Differences",
    "DueJob",
    "FoldedBatch",
    "FoundJobs",
    "Gap",
    "HeldJob",
    "HistoryRange",
    "HistoryRow",
    "JobQuery",
    "KeyState",
    "KeyedSubmission",
    "NamedPosition",
    "NeedsThread",
    "PastPage",
    "Position",
    "RawMessage",
    "RebuildState",
    "RelayState",
    "SeenWorker",
    "Store",
    "Subscription",
    "UnreadableRow",
    "Webhook",
    "history_row",
]


_JOB = select(tables.jobs).where(tables.jobs.c.id == bindparam("job_id"))
"""Built once: with so many columns, building the statement takes longer than running it."""


class Store:
    """The view in the database that ``url`` names. Several threads may share it.

    ``url``: ``sqlite:///path`` or ``postgresql://user:password@host/database``; another form raises JobtapeError.
    ``timeout``: seconds to wait for a lock, for a free connection and for the answer to a read. Connects at the first
    call.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        self._database = Database(url, timeout)
        self.quick = QuickReads(self._database.url)
        """Reads for an event loop, of a SQLite file."""
        self.awaited = AwaitedReads(self._database)
        """Reads for an event loop, of PostgreSQL."""
        self.committed = CommittedHistory(self._database)
        """The events that the fold accepted, for listeners."""
        self.positions = Positions(self._database)
        """How far the named listeners have come."""
        self.search = JobSearcher(self._database)
        """Jobs by filters, also by their texts."""
        self.past = PastView(self._database)
        """Jobs as they were at an earlier cursor."""
        self.open_jobs = OpenJobs(self._database)
        """Jobs that are not final."""
        self.flows = Flows(self._database)
        """The jobs of flows."""
        self.dead_messages = DeadMessages(self._database)
        """Messages of the dead queue that are no job."""
        self.keys = IdempotencyKeys(self._database)
        """The producer's idempotency keys, which are no part of the fold."""
        self.rebuilds = RebuildStore(self._database)
        """The rebuild that is in progress."""
        self.rates = Rates(self._database)
        """The latest placements of slow rates."""
        self.tasks = Tasks(self._database)
        """The states of long tasks."""
        self.worker_signs = WorkerSigns(self._database)
        """The last sign of life of each worker, which is no part of the fold."""
        self.webhooks = Webhooks(self._database)
        """The endpoints of webhooks, which are no part of the fold."""
        self.api_keys = ApiKeys(self._database)
        """The API keys, which are no part of the fold."""
        self.retention = JobRetention(self._database)
        """Removes old jobs."""
        self.statistics = Statistics(self._database)
        """Numbers of jobs and events."""
        self.relay = RelayRow(self._database)
        """How far the relay has published the committed history."""

    @property
    def url(self) -> str:
        """The URL, with its password."""
        return self._database.url.render_as_string(hide_password=False)

    @property
    def url_for_messages(self) -> str:
        """The URL without its password."""
        return self._database.name

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._database.dialect

    def close(self) -> None:
        """Close all connections."""
        self.quick.close()
        self.awaited.close()
        self._database.close()

    def migrate(self) -> None:
        """Create the tables or update them to this program's version. Several processes may do it at once."""
        with self._database.translating_errors(migrating=True):
            migrate.to_newest(self._database.url)

    def destroy(self) -> None:
        """Remove the tables, or the file of SQLite. A later call finds no tables.

        Raises ViewUnavailable when they are not the tables of this program's version.
        """
        with self._database.writing() as connection:
            migrate.drop_tables(connection)
        self.close()
        migrate.delete_file(self._database.url)

    # Reads

    def job(self, job_id: str) -> Job | None:
        """Return the job, or None when the folded part of the tape has no event of it."""
        with self._database.reading() as connection:
            row = connection.execute(_JOB, {"job_id": job_id}).first()
        return None if row is None else job_from_row(row)

    def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return the jobs that are known, by id."""
        if not job_ids:
            return {}
        with self._database.by_driver("read") as connection:
            (found,) = connection.select_in(job_ids, tables.jobs.c.id)
        return {job.id: job for job in map(job_from_driver, found)}

    def list_jobs(self, query: JobQuery) -> list[Job]:
        """Return at most ``query.limit`` jobs that fit the query, the newest id first."""
        statement = jobs.listing(self._database, select(tables.jobs), query)
        with self._database.reading() as connection:
            return [job_from_row(row) for row in connection.execute(statement).all()]

    def history(self, job_id: str | None = None, after: int = 0, limit: int = 1000) -> list[HistoryRow]:
        """Return the events of one job, or of all, after the cursor ``after``, in the order of the tape."""
        entry = tables.history.c
        statement = select(tables.history).where(entry.cursor > after).order_by(entry.cursor).limit(limit)
        if job_id is not None:
            statement = statement.where(entry.job_id == job_id)
        with self._database.reading() as connection:
            return [history_from_row(row) for row in connection.execute(statement).all()]

    def unreadable(self, after: int = 0, limit: int = 100) -> list[UnreadableRow]:
        """Return the unreadable messages after the cursor ``after``, in the order of the tape."""
        entry = tables.unreadable.c
        statement = select(tables.unreadable).where(entry.cursor > after).order_by(entry.cursor).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [UnreadableRow(cursor=row.cursor, reason=row.reason, body=bytes(row.body)) for row in rows]

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the numbers of accepted events by (job type, event name)."""
        row = tables.tally.c
        statement = select(row.type, row.measure, row.n).where(row.minute == ALWAYS, row.measure.in_(EVENT_NAMES))
        with self._database.reading() as connection:
            return {(job_type, event): n for job_type, event, n in connection.execute(statement).all()}

    def passed_barrier(self, process: str) -> int:
        """Return the highest number of the process's barriers that the fold has passed; 0 for none in the last hour."""
        row = tables.barriers.c
        with self._database.reading() as connection:
            return connection.execute(select(row.seq).where(row.process == process)).scalar() or 0

    def checkpoint(self) -> Checkpoint | None:
        """Return how far the tape is folded; None before the first start."""
        with self._database.reading() as connection:
            return checkpoint.read(connection)

    def fold_fault(self) -> str | None:
        """Return why nothing after the checkpoint can be folded, as the projector noted it; None when it can."""
        with self._database.reading() as connection:
            return checkpoint.read_fault(connection)

    def events_behind(self) -> int | None:
        """Return how many events on the tape are not in the view, up to the end that the active projector noted last.
        None when no projector has noted it in the last seconds.
        """
        with self._database.reading() as connection:
            return checkpoint.events_behind(connection)

    # Writes of the projector. Those with ``owner`` return False or None, and write nothing, when another one is active.

    def expect_fresh_tape(self) -> None:
        """Note that the relay begins with the first event of the tape, unless something was folded before.

        Call it before you create the tape. Another projector that finds the tape must find the note too, even when the
        process that created the tape is slow or dead.
        """
        with self._database.writing() as connection:
            now = checkpoint.read(connection)
            if now is None or (now.epoch, now.offset) == (FIRST_EPOCH, None):
                bulk.insert_one(connection, tables.relay, id=1, cursor=0)

    def create_checkpoint(self) -> bool:
        """Create the checkpoint of the first start (epoch 1, nothing read); return False when there is one."""
        with self._database.writing() as connection:
            return bulk.insert_one(connection, tables.checkpoint, id=1, epoch=FIRST_EPOCH)

    def take_lease(self, owner: str, seconds: float) -> Checkpoint | None:
        """Become the active projector for ``seconds``, or stay it. Returns the checkpoint to continue from.

        Returns None while another projector is active, and before there is a checkpoint.
        """
        now = self.checkpoint()
        # A projector in stand-by asks often and must not block the single writer of SQLite.
        if now is None or (now.owner not in (None, owner) and now.lease_left > 0):
            return None
        with self._database.writing() as connection:
            taken = connection.execute(leases.take(tables.checkpoint, owner, seconds)).rowcount == 1
            return checkpoint.read(connection) if taken else None

    def renew_lease(self, owner: str, seconds: float) -> bool:
        """Stay the active projector for ``seconds`` from now."""
        with self._database.writing() as connection:
            return connection.execute(leases.renew(tables.checkpoint, owner, seconds)).rowcount == 1

    def release_lease(self, owner: str) -> None:
        """Let another projector become active at once."""
        with self._database.writing() as connection:
            connection.execute(leases.release(tables.checkpoint, owner))

    def commit(self, owner: str, expected: tuple[int, int | None], batch: FoldedBatch, lease_seconds: float) -> bool:
        """Write a batch, move the checkpoint from ``expected`` (epoch, offset) and renew the lease, in one transaction.

        Returns False, and writes nothing, when another projector is active, the checkpoint is not at ``expected``, or a
        job of ``batch.new`` is known or was removed.
        """
        with self.folding() as session:
            return session.commit(owner, expected, batch, lease_seconds)

    @contextmanager
    def folding(self) -> Iterator[FoldSession]:
        """Open a connection on which one batch is read, folded and committed."""
        with self._database.by_driver("fold") as connection:
            yield FoldSession(connection)

    def report_gap(self, owner: str, gap: Gap | None) -> bool:
        """Note why the active projector cannot continue, or with None that it can."""
        values = {"gap_kind": gap and gap.kind, "gap_detail": gap and storable(gap.detail)}
        statement = update(tables.checkpoint).where(tables.checkpoint.c.owner == owner).values(**values)
        with self._database.writing() as connection:
            return connection.execute(statement).rowcount == 1

    def note_fold_fault(self, owner: str, fault: str) -> bool:
        """Note why nothing after the checkpoint can be folded, for readiness, metrics and ``jobtape doctor``."""
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            checkpoint.note_fault(connection, fault)
            return True

    def note_tape_end(self, owner: str, offset: int) -> bool:
        """Note that the tape has a message at ``offset`` now."""
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            checkpoint.note_end(connection, offset)
            return True

    # Writes of the administrator

    def accept_gap(self) -> Checkpoint:
        """Continue behind the gap with the first message that the tape has now. Raises JobtapeError without a gap.

        A different log (missing, replaced) begins the next epoch; a truncated one stays in its own.
        """
        with self._database.writing() as connection:
            return checkpoint.accept_gap(connection)
