"""The values that are written into the view and read from it, besides ``schemas.job.Job``."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Literal, TypeVar
from zlib import crc32

from jobtape.schemas import plainjson
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import JobEvent, RelayMode
from jobtape.schemas.filters.job_filter import JobFilter
from jobtape.schemas.filters.job_search import JobSearch
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX
from jobtape.schemas.queueing.gates import Gates
from jobtape.view.tallies import FailureSpan, TallyKey

T = TypeVar("T")

SNAPSHOT_EVERY: Final = 64

GapKind = Literal["tape-missing", "tape-replaced", "tape-truncated"]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list. An empty tuple means any value, several values mean one of them.

    ``labels``: (name, value) pairs; a job must have all of them. ``since`` (inclusive) and ``until`` (exclusive): the
    time in the job's id, in milliseconds. ``before``: only smaller ids; give the last id of the previous page.
    ``whole``: only jobs whose submission is known. ``ids``: only these. ``search``: what to look for in the jobs, which
    is not in an index: see ``FoundJobs``. ``builtin``: also those of built-in job types. ``flow``, ``node``: only
    the jobs of a flow, or of one of its nodes. ``imported``: also those that came from another tape and have no work
    here. ``ordering_key``: only the jobs with this one. ``has_slots``: only jobs that have a slot of their gates, see
    ``Job.has_slots``.
    """

    types: Sequence[str] = ()
    states: Sequence[JobState] = ()
    queues: Sequence[str] = ()
    labels: Sequence[tuple[str, str]] = ()
    reasons: Sequence[str] = ()
    failures: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    before: str | None = None
    limit: int = 100
    whole: bool = False
    ids: Sequence[str] = ()
    search: JobSearch = field(default_factory=JobSearch)
    builtin: bool = True
    flow: str | None = None
    node: str | None = None
    imported: bool = True
    ordering_key: str | None = None
    has_slots: bool = False

    @classmethod
    def of(cls, wanted: JobFilter, limit: int) -> "JobQuery":
        """Return the query for at most ``limit`` jobs of a built-in job's filter."""
        return cls(
            types=wanted.type,
            states=wanted.states(),
            queues=wanted.queue,
            labels=tuple(wanted.labels.items()),
            reasons=wanted.reason,
            failures=wanted.failure,
            ordering_key=wanted.ordering_key,
            since=wanted.since,
            until=wanted.until,
            limit=limit,
            whole=True,
            ids=wanted.ids,
            search=wanted.search(),
            builtin=any(name.startswith(BUILTIN_PREFIX) for name in wanted.type),
        )


@dataclass(frozen=True, slots=True)
class FoundJobs(Generic[T]):
    """Jobs, newest first. ``before``: the ``JobQuery.before`` of the next page, None on the last page.

    ``scanned``: how many jobs were examined. A search ends after a limited number, so there may be a next page although
    this one has fewer jobs than the limit, or none.
    """

    jobs: Sequence[T]
    before: str | None
    scanned: int


@dataclass(frozen=True, slots=True)
class PastPage:
    """Jobs as they were at a cursor. ``before``: the ``JobQuery.before`` of the next page, None on the last page.

    There may be a next page although this one has fewer jobs than the limit, or none.
    """

    jobs: Sequence[Job]
    before: str | None


@dataclass(frozen=True, slots=True)
class Position:
    """The cursor and the time of one event."""

    cursor: int
    time: datetime


@dataclass(slots=True)  # not frozen: there is one for each event, and a frozen one takes three times as long to make
class HistoryRow:
    """One event of the tape. ``accepted``: whether it changed the job. ``event``: its CloudEvent as it was read.

    ``state`` and ``reason``: those of the job after the event. ``snapshot``: the job after the event, for some events;
    it is only written.
    """

    cursor: int
    job_id: str
    name: str
    time: datetime
    accepted: bool
    state: JobState
    reason: str | None
    event: str
    snapshot: Job | None = field(default=None, compare=False, repr=False)

    @property
    def event_id(self) -> str:
        """The id of the event, which is parsed for it."""
        return id_of(self.event)


def id_of(event: str) -> str:
    """Return the id in the text of a CloudEvent."""
    return str(plainjson.loads(event.encode())["id"])


def history_row(cursor: int, event: JobEvent, text: str, before: Job | None, after: Job) -> HistoryRow:
    """Return the row of an event, whose CloudEvent is ``text``. ``before`` and ``after``: its job; the same if it was
    rejected.
    """
    accepted = after is not before
    snapshot = after if accepted and before is not None and not after.final and has_snapshot(cursor) else None
    return HistoryRow(
        cursor, event.subject, event.name, event.time, accepted, after.state, after.reason, text, snapshot
    )


def has_snapshot(cursor: int) -> bool:
    """Return whether the event at ``cursor`` has a snapshot of its job, if it is accepted and does not end the job.

    It is so for one event of ``SNAPSHOT_EVERY``. It depends on the cursor only, so a rebuild has the same snapshots,
    and as good as at random, so every job with many events has some.
    """
    return crc32(b"%d" % cursor) % SNAPSHOT_EVERY == 0


@dataclass(frozen=True, slots=True)
class HistoryRange:
    """The range of the committed history: all events after the cursor ``horizon``, up to and including ``head``.

    A reader before ``horizon`` has missed events that are not stored any more.
    """

    horizon: int = 0
    head: int = 0


@dataclass(frozen=True, slots=True)
class NamedPosition:
    """How far a named reader has come. ``idle``: the time since it last moved. ``owner``: who holds it now."""

    name: str
    cursor: int
    owner: str | None
    idle: timedelta


@dataclass(frozen=True, slots=True)
class Subscription:
    """A durable catch-up subscription. ``behind``: the number of events after its position, ``MOST_BEHIND`` at most."""

    name: str
    position: NamedPosition
    behind: int


@dataclass(frozen=True, slots=True)
class RelayState:
    """The state of the relay.

    ``mode``: which events it publishes. ``cursor``: up to which it has. ``delivered``: confirmed events. ``refused``:
    events that a full queue refused. ``stalls``: how often it was stalled. ``fault``: why it is stalled now.
    ``behind``: the age in seconds of the next event, 0 when all are published.
    """

    mode: RelayMode
    cursor: int
    delivered: int
    refused: int
    stalls: int
    fault: str | None
    behind: float


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A message of the tape that this program could not read, raw, and the reason."""

    cursor: int
    reason: str
    body: bytes


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job whose work is to be placed on ``queue`` at ``run_at``."""

    id: str
    queue: str
    run_at: datetime


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that waits for its ``gates`` and until ``run_at``. The jobs of ``group`` are placed in the order of
    ``rank`` and ``id``.
    """

    id: str
    type: str
    queue: str
    run_at: datetime
    gates: Gates
    group: str
    rank: int

    @property
    def key(self) -> tuple[int, str]:
        """Sorts the jobs of a group."""
        return self.rank, self.id


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message of the dead queue that is no job. ``body``: only its beginning when ``size`` (bytes) is greater.

    ``id``: its number in the view, None before it is written. ``message_id``: recognizes a repeated message.
    """

    message_id: str
    at: datetime
    reason: str
    body: bytes
    size: int
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Why the projector cannot continue: the log is missing, is a different one, or has lost messages."""

    kind: GapKind
    detail: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the tape is folded. ``offset`` and ``digest``: of the last message, None before the first.

    ``lease_left``: seconds for which ``owner`` is still the active projector; 0 when no lease runs. ``read_at``: the
    database's time when the checkpoint was read, in seconds since 1970.
    """

    epoch: int
    offset: int | None
    digest: str | None
    owner: str | None
    lease_left: float
    gap: Gap | None
    read_at: float = field(default=0.0, compare=False)

    @property
    def cursor(self) -> int:
        """The cursor of the last folded message; before the first of an epoch, the cursor just before its offset 0."""
        return cursor_of(self.epoch, -1 if self.offset is None else self.offset)


@dataclass(frozen=True, slots=True)
class FoldedBatch:
    """What a part of the tape changed, up to and including the message at ``offset``, whose SHA-256 is ``digest``.

    ``jobs``: each changed job once, as it is afterwards. ``tally``: what to add to the sums. ``failures``: the groups
    of the failures among the events. ``barriers``: the highest number of the passed barriers, by process. ``horizon``:
    the cursor before which the tape has lost messages that were never folded, when this part shows it. ``new``: the ids
    of jobs that were folded without a read, as the view cannot have them yet; if it has one, the batch is not written.
    """

    offset: int | None
    digest: str | None
    jobs: Sequence[Job] = ()
    history: Sequence[HistoryRow] = ()
    unreadable: Sequence[UnreadableRow] = ()
    tally: Mapping[TallyKey, int] = field(default_factory=dict)
    failures: Sequence[FailureSpan] = ()
    barriers: Mapping[str, int] = field(default_factory=dict)
    horizon: int = 0
    new: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pruned:
    """The number of removed jobs. ``last``: the id to continue after, None when there are no more."""

    jobs: int
    last: str | None


@dataclass(frozen=True, slots=True)
class ByJob:
    """How far the archive up to the cursor ``end`` is folded job by job: up to the cursor ``event`` of job ``job_id``.

    While ``job_id`` is empty, unreadable messages are folded, up to the cursor ``event``. ``events``: how many so far.
    """

    end: int
    job_id: str = ""
    event: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class RebuildState:
    """A new ``generation`` of the folded tables, folded up to ``cursor``. ``key``: the run of the rebuild's job that
    makes it.

    ``by_job``: how far the events after ``cursor`` are folded job by job; None when they are folded in their order.
    """

    generation: int
    key: str
    cursor: int
    by_job: ByJob | None = None


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message that was folded before, raw. ``job_id``: its job, where it is known without decoding the message."""

    cursor: int
    body: bytes
    job_id: str = ""


@dataclass(slots=True)
class Differences:
    """The result of a comparison of ``compared`` jobs, as plain values.

    ``states``: for each pair of the states ``serving`` and ``rebuilt``, None where there is no such job, the number of
    ``jobs``, and how many of them are ``changed``, in any field. ``changed``, ``missing`` and ``added``: the number of
    jobs that differ, that only the serving generation has, and that only the new one has. ``examples``: some jobs of
    each pair, with the serving and the new value of each field that differs.
    """

    compared: int = 0
    states: list[dict[str, Any]] = field(default_factory=list)
    changed: int = 0
    missing: int = 0
    added: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
