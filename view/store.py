"""The one way into the view. Each call is one read or one transaction; all of them block.

Every call raises ViewUnavailable, with what to do, when the database does not answer, is locked, or has no tables or
other ones than this program knows. After a write that raised it, nobody knows whether it was committed (the connection
may have died in the answer): read the checkpoint again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from jobtape.schemas.events import Dropped
from jobtape.schemas.job import Job
from jobtape.view import (
    checkpoint,
    fold_trouble,
    jobs,
    keys,
    open_jobs,
    outbox,
    placements,
    projection,
    relay_row,
)
from jobtape.view import (
    dead_messages as dead,
)
from jobtape.view.committed_event import CommittedEvent, CommittedPage
from jobtape.view.committed_history import CommittedHistory
from jobtape.view.keys import Claim, KeyedSubmission, KeyState
from jobtape.view.past import PastView
from jobtape.view.positions import Positions
from jobtape.view.rebuilds import Rebuilds
from jobtape.view.relay_row import RelayRow
from jobtape.view.retention import JobRetention
from jobtape.view.sql import migrate
from jobtape.view.sql.database import Database
from jobtape.view.sql.roles import PATIENCE
from jobtape.view.tasks import Tasks
from jobtape.view.values import (
    Archived,
    Batch,
    Checkpoint,
    ClosedJob,
    DeadMessage,
    Differences,
    Gap,
    HistoryRange,
    HistoryRow,
    JobQuery,
    NamedPosition,
    OpenJobsMoment,
    OutboxRow,
    PastPage,
    Rebuild,
    RelayState,
    UnreadableRow,
)

__all__ = [
    "Archived",
    "Batch",
    "Checkpoint",
    "Claim",
    "ClosedJob",
    "CommittedEvent",
    "CommittedPage",
    "DeadMessage",
    "Differences",
    "Gap",
    "HistoryRange",
    "HistoryRow",
    "JobQuery",
    "KeyState",
    "KeyedSubmission",
    "NamedPosition",
    "OpenJobsMoment",
    "OutboxRow",
    "PastPage",
    "Rebuild",
    "RelayState",
    "Store",
    "UnreadableRow",
]


class Store:
    """The view in the database that ``url`` names; it may be shared by threads.

    ``url``: ``sqlite:///path`` or ``postgresql://user:password@host/database``; another form raises JobtapeError.
    ``patience``: seconds to wait for a lock, a free connection, and for the answer to a read. Nothing connects yet.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self._database = Database(url, patience)
        self.committed = CommittedHistory(self._database)
        """What the fold accepted, for those who listen."""
        self.positions = Positions(self._database)
        """How far the named ones among them have come."""
        self.past = PastView(self._database)
        """Jobs as they were."""
        self.rebuilds = Rebuilds(self._database)
        """A further generation of the view, made beside this one."""
        self.tasks = Tasks(self._database)
        """How far long tasks have come."""
        self.retention = JobRetention(self._database)
        """Lets go of what ended long ago."""
        self.relay = RelayRow(self._database)
        """How far the relay has published it."""

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
        self._database.close()

    def migrate(self) -> None:
        """Make the tables, or bring them to this program's version; any number of processes may do it at once."""
        with self._database.translating_errors(making=True):
            migrate.to_newest(self._database.url)

    # Reading

    def job(self, job_id: str) -> Job | None:
        """The job, or None when the tape, as far as it is folded, says nothing of it."""
        with self._database.reading() as connection:
            return jobs.one(connection, job_id)

    def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Those of the jobs that are known, by id."""
        with self._database.reading() as connection:
            return jobs.some(connection, job_ids)

    def list_jobs(self, query: JobQuery) -> list[Job]:
        """A page of jobs, newest id first."""
        with self._database.reading() as connection:
            return jobs.page(connection, query)

    def history(self, job_id: str | None = None, after: int = 0, limit: int = 1000) -> list[HistoryRow]:
        """The events of one job, or of all, behind the cursor ``after``, in the tape's order."""
        with self._database.reading() as connection:
            return jobs.events(connection, job_id, after, limit)

    def unreadable(self, after: int = 0, limit: int = 100) -> list[UnreadableRow]:
        """What could not be read, behind the cursor ``after``, in the tape's order."""
        with self._database.reading() as connection:
            return jobs.unreadable(connection, after, limit)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many events were accepted, by (job type, event name)."""
        with self._database.reading() as connection:
            return jobs.counts(connection)

    def passed_barrier(self, process: str) -> int:
        """The highest number of the process's barriers that the fold has passed; 0 for none in the last hour."""
        with self._database.reading() as connection:
            return jobs.passed_barrier(connection, process)

    def closed_jobs(self, query: JobQuery) -> list[ClosedJob]:
        """A page of jobs, newest first, with what a redrive needs of them."""
        with self._database.reading() as connection:
            return jobs.closed(connection, query)

    def open_queues(self) -> list[str]:
        """The queues that jobs are on which are not final."""
        with self._database.reading() as connection:
            return open_jobs.queues(connection)

    def moment(self) -> OpenJobsMoment | None:
        """The database's time and how far the tape is folded; None before the first start."""
        with self._database.reading() as connection:
            return open_jobs.moment(connection)

    def overdue_jobs(self, queue: str, due: datetime, cursor: int, after: str, limit: int) -> list[Job]:
        """Jobs of ``queue`` that are not final, were due by then, and of which no event came after ``cursor``; by
        id, from the first behind ``after``.
        """
        with self._database.reading() as connection:
            return open_jobs.overdue(connection, queue, due, cursor, after, limit)

    def effects_due(self, limit: int) -> list[OutboxRow]:
        """What may be published now."""
        with self._database.reading() as connection:
            return outbox.due(connection, limit)

    def dropped_placements(self, jobs: Collection[Job]) -> Mapping[str, int]:
        """How many placements of each job's present run followed from work that the broker dropped, by id."""
        with self._database.reading() as connection:
            return placements.dropped_of(connection, jobs)

    def recent_drops(self) -> Mapping[tuple[str, Dropped], int]:
        """How often the broker dropped work of late, by queue and reason (``expired``, ``maxlen``)."""
        with self._database.reading() as connection:
            return placements.recent_drops(connection)

    def effects_waiting(self) -> int:
        """How many effects are not on the tape yet, as far as it is folded."""
        with self._database.reading() as connection:
            return outbox.waiting(connection)

    def dead_messages(self, before: int | None = None, limit: int = 100) -> list[DeadMessage]:
        """Messages that are no job, newest first, of smaller numbers than ``before``."""
        with self._database.reading() as connection:
            return dead.page(connection, before, limit)

    def dead_message(self, number: int) -> DeadMessage | None:
        """The message of that number, or None."""
        with self._database.reading() as connection:
            return dead.one(connection, number)

    def dead_count(self) -> int:
        """How many messages that are no job are kept."""
        with self._database.reading() as connection:
            return dead.count(connection)

    def checkpoint(self) -> Checkpoint | None:
        """How far the tape is folded; None before the first start."""
        with self._database.reading() as connection:
            return checkpoint.read(connection)

    def fold_trouble(self) -> str | None:
        """Why nothing is folded from the checkpoint on, as the active projector noted it; None when it goes on."""
        with self._database.reading() as connection:
            return fold_trouble.read(connection)

    # Writing: the projector's

    def expect_fresh_tape(self) -> None:
        """Before the tape is created: the relay is to tell all of it, unless something was folded before.

        Not afterwards: whoever finds the tape, while its creator is slow or dead, must find that noted.
        """
        with self._database.writing() as connection:
            if checkpoint.read(connection) is None or checkpoint.is_unread(connection):
                relay_row.begin_with_tape(connection)

    def create_checkpoint(self) -> bool:
        """Make the checkpoint of the first start (epoch 1, nothing read); False when there is one."""
        with self._database.writing() as connection:
            return checkpoint.create(connection)

    def take_lease(self, owner: str, seconds: float) -> Checkpoint | None:
        """Become the active projector for ``seconds``: the checkpoint to go on from, or None while another is.

        None too before there is a checkpoint. A lease of one's own is renewed.
        """
        now = self.checkpoint()
        # Those in stand-by ask all the time and must not keep SQLite's one writer waiting.
        if now is None or (now.owner not in (None, owner) and now.lease_left > 0):
            return None
        with self._database.writing() as connection:
            return checkpoint.read(connection) if checkpoint.take_lease(connection, owner, seconds) else None

    def renew_lease(self, owner: str, seconds: float) -> bool:
        """Stay active for ``seconds`` from now; False when another took over."""
        with self._database.writing() as connection:
            return checkpoint.renew_lease(connection, owner, seconds)

    def release_lease(self, owner: str) -> None:
        """Let another become active at once."""
        with self._database.writing() as connection:
            checkpoint.release_lease(connection, owner)

    def commit(self, owner: str, expected: tuple[int, int | None], batch: Batch, lease_seconds: float) -> bool:
        """Write a batch and move the checkpoint from ``expected`` (epoch, offset) in one transaction.

        Renews the lease. False, and nothing is written, when the checkpoint stands elsewhere or is another's.
        """
        with self._database.writing() as connection:
            if not checkpoint.advance(connection, owner, expected, batch, lease_seconds):
                return False
            projection.write(connection, batch)
            return True

    def report_gap(self, owner: str, gap: Gap | None) -> bool:
        """Note why the active projector cannot go on, or with None that it can; False when ``owner`` isn't active."""
        with self._database.writing() as connection:
            return checkpoint.report_gap(connection, owner, gap)

    def note_fold_trouble(self, owner: str, trouble: str) -> bool:
        """Note why nothing is folded from the checkpoint on; False when ``owner`` isn't active."""
        with self._database.writing() as connection:
            return fold_trouble.note(connection, owner, trouble)

    # Idempotency keys: the producer's, and no part of the view

    def claim_keys(
        self, scope: str, owner: str, submissions: Sequence[KeyedSubmission], lease: float
    ) -> dict[str, Claim]:
        """Write the rows of new keys, take over those that were let go, for ``lease`` seconds; by key.

        ``owner`` is a name never used before.
        """
        with self._database.writing() as connection:
            return keys.claim(connection, scope, owner, submissions, lease)

    def key_state(self, scope: str, submission: KeyedSubmission) -> Claim | None:
        """How the submission's key stands now; None when nobody uses it."""
        with self._database.reading() as connection:
            return keys.one(connection, scope, submission)

    def accepted_by_key(self, job_id: str) -> bool | None:
        """Whether the job's submission is known to have been confirmed; None when it came without a key."""
        with self._database.reading() as connection:
            return keys.accepted(connection, job_id)

    def settle_keys(
        self, owner: str, *, accepted: Iterable[str] = (), let_go: Iterable[str] = (), forget: Iterable[str] = ()
    ) -> None:
        """Say what became of jobs that were submitted under keys: on the tape; open for the next one who comes; never
        published at all.
        """
        with self._database.writing() as connection:
            keys.mark(connection, accepted)
            keys.release(connection, owner, let_go)
            keys.forget(connection, owner, forget)

    def prune_keys(self, older_than: float, limit: int) -> int:
        """Remove up to ``limit`` keys written more than ``older_than`` seconds ago; how many it were."""
        with self._database.writing() as connection:
            return keys.prune(connection, older_than, limit)

    def add_effects(self, owner: str, effects: Sequence[OutboxRow], dead_messages: Sequence[DeadMessage] = ()) -> bool:
        """Let effects be published and keep dead messages, in one transaction; False, and nothing is written, when
        ``owner`` isn't the active projector. An effect that the tape has by now is left out.
        """
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            outbox.add_new(connection, effects)
            dead.add(connection, dead_messages)
            return True

    def put_off_effects(self, seconds: dict[str, float]) -> None:
        """Publishing these (by id) came to nothing: they are due again after so many seconds."""
        with self._database.writing() as connection:
            outbox.put_off(connection, seconds)

    # Writing: the administrator's

    def accept_gap(self) -> Checkpoint:
        """Go on behind the gap from the start of what the log has now. Raises JobtapeError when there is none.

        A log that is another one (missing, replaced) begins the next epoch; a truncated one stays in its own.
        """
        with self._database.writing() as connection:
            return checkpoint.accept_gap(connection)
