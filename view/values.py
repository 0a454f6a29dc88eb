"""What goes into the view and comes out of it, besides ``schemas.job.Job``."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from jobtape.schemas import cursor as position
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.relay_events import RelayMode

GapKind = Literal["tape-missing", "log-replaced", "log-truncated"]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list; an empty tuple asks for any, several values of one field mean either of them.

    ``labels``: (name, value) pairs, all of which a job must have. ``since`` (inclusive) and ``until`` (exclusive) are
    about the time in the job's id, to the millisecond. ``before``: only ids smaller than this one, which is the last
    of the page before. ``whole``: only jobs of which what was ordered is known.
    """

    types: Sequence[str] = ()
    states: Sequence[JobState] = ()
    queues: Sequence[str] = ()
    labels: Sequence[tuple[str, str]] = ()
    reasons: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    before: str | None = None
    limit: int = 100
    whole: bool = False


@dataclass(frozen=True, slots=True)
class PastPage:
    """Jobs as they were at some cursor. ``before``: only smaller ids are on the next page, None when there is none; it
    may be set although ``jobs`` are fewer than the limit, or none.
    """

    jobs: Sequence[Job]
    before: str | None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One event of the tape. ``accepted`` tells whether it changed the job; ``event`` is its CloudEvent as read.

    ``after`` is the job after it, stored without payload and result (None on the way out): those stand in the
    ``submitted`` and ``succeeded`` events.
    """

    cursor: int
    job_id: str
    event_id: str
    name: str
    time: datetime
    accepted: bool
    event: str
    after: Job


@dataclass(frozen=True, slots=True)
class HistoryRange:
    """From where to where the committed history goes: complete behind the cursor ``horizon``, up to and with ``head``.

    Whoever stands before ``horizon`` has missed what is not there any more.
    """

    horizon: int = 0
    head: int = 0

    @classmethod
    def of(cls, epoch: int, offset: int | None, horizon: int) -> "HistoryRange":
        """As the checkpoint says it."""
        head = position.cursor_of(epoch, -1 if offset is None else offset)
        return cls(horizon, max(head, horizon))


@dataclass(frozen=True, slots=True)
class NamedPosition:
    """A named reader has done with everything up to ``cursor``, and last moved ``idle`` ago; ``owner`` holds it now."""

    name: str
    cursor: int
    owner: str | None
    idle: timedelta


@dataclass(frozen=True, slots=True)
class RelayState:
    """The state of the relay: which events it publishes, up to which cursor it has, how many events were confirmed
    (``delivered``) and how many a full queue refused, how often it ``stalled`` and why it is stalled now, and how many
    seconds ago the next event happened (0 when all are published).
    """

    mode: RelayMode
    cursor: int
    delivered: int
    refused: int
    stalls: int
    trouble: str | None
    behind: float


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A message of the tape that this program could not read, raw, and why."""

    cursor: int
    reason: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An effect that is not known to be on the tape: ``event`` is its CloudEvent, ``id`` the event's, ``keys`` its
    further routing keys. ``tries``: how often publishing it came to nothing. ``wait``: seconds until it is due, from
    when it is added.
    """

    id: str
    event: str
    keys: Sequence[str] = ()
    tries: int = 0
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that came to the dead queue and is no job: ``body`` as it was, or its beginning when ``size`` (bytes)
    is more. ``id``: its number in the view, None before it is there; ``message_id`` tells it from others.
    """

    message_id: str
    at: datetime
    reason: str
    body: bytes
    size: int
    id: int | None = None


@dataclass(frozen=True, slots=True)
class ClosedJob:
    """A job as a redrive needs it. ``known``: whether what was ordered is known, so that it can be placed again."""

    id: str
    type: str
    run: int
    correlation_id: str | None
    known: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Why the projector cannot go on from its checkpoint: the log is gone, is another one, or lost messages."""

    kind: GapKind
    detail: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the tape is folded. ``offset`` and ``digest`` are those of the last message, None before the first.

    ``lease_left``: for how many seconds ``owner`` is still the active projector, by the database's clock; 0 when no
    lease runs.
    """

    epoch: int
    offset: int | None
    digest: str | None
    owner: str | None
    lease_left: float
    gap: Gap | None

    @property
    def cursor(self) -> int:
        """The cursor of the last message folded; before the first of an epoch, the number just below its offset 0."""
        return position.cursor_of(self.epoch, -1 if self.offset is None else self.offset)


@dataclass(frozen=True, slots=True)
class OpenJobsMoment:
    """``now``: the database's time, in seconds since 1970; ``cursor``: how far the tape was folded then."""

    now: float
    epoch: int
    offset: int | None

    @property
    def cursor(self) -> int:
        """As the checkpoint's."""
        return position.cursor_of(self.epoch, -1 if self.offset is None else self.offset)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a stretch of the tape changed, up to and with the message at ``offset``, whose SHA-256 is ``digest``.

    ``jobs``: the changed ones as they are at the end of the stretch, each once. ``counts``: (job type, event) to the
    number of accepted events, to be added. ``barriers``: process to the highest number of its barriers that passed.
    ``effects``: what is to be published because of it; ``seen``: ids of effects that were on this stretch.
    ``horizon``: the cursor before which the tape has lost what was never folded, when that shows in this stretch.
    """

    offset: int | None
    digest: str | None
    jobs: Sequence[Job] = ()
    history: Sequence[HistoryRow] = ()
    unreadable: Sequence[UnreadableRow] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    barriers: Mapping[str, int] = field(default_factory=dict)
    effects: Sequence[OutboxRow] = ()
    seen: Collection[str] = ()
    horizon: int = 0


@dataclass(frozen=True, slots=True)
class Pruned:
    """So many jobs were removed; ``last``: the id to go on behind, None when there are no more."""

    jobs: int
    last: str | None


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A further ``generation`` of the folded tables, folded up to ``cursor``; ``key`` says who makes it."""

    generation: int
    key: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Archived:
    """A message that was folded before, as it was read."""

    cursor: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Difference:
    """A job that two generations tell differently: field -> (in the serving one, in the new one)."""

    job_id: str
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Differences:
    """Of ``compared`` jobs, how many stand in which state in the one and the other, how many are ``changed``, how many
    ``missing`` in the new generation and how many ``added``; with some examples.
    """

    compared: int = 0
    states: Mapping[tuple[str, str], int] = field(default_factory=dict)
    changed: int = 0
    missing: int = 0
    added: int = 0
    examples: Sequence[Difference] = ()

    def plus(self, other: "Differences") -> "Differences":
        """Both together."""
        return Differences(
            self.compared + other.compared,
            Counter(self.states) + Counter(other.states),
            self.changed + other.changed,
            self.missing + other.missing,
            self.added + other.added,
            (*self.examples, *other.examples),
        )
