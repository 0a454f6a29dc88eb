"""The tables. Migrations create them; a test compares both."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlalchemy.util import OrderedSet

from jobtape.view.packing import pack, unpack

SCHEMA_VERSION: Final = "0001"
"""The version of the newest migration."""


@lru_cache(4096)  # a time is in several rows
def utc_text(time: datetime) -> str:
    """Return an aware time as text of fixed width, which sorts by time and which both databases accept."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


class UtcTime(TypeDecorator[datetime]):
    """An aware time to the microsecond, UTC when read: ``timestamptz`` on PostgreSQL, ISO 8601 text on SQLite."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return utc_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return datetime.fromisoformat(value) if dialect.name == "sqlite" else value.astimezone(UTC)


class PackedEvent(TypeDecorator[str]):
    """The text of an event, which is stored compressed."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> bytes | None:
        return None if value is None else pack(value)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> str | None:
        return None if value is None else unpack(value)


# Ids are compared byte by byte: a database's locale neither changes their order nor slows it down.
Key = Text().with_variant(Text(collation="C"), "postgresql")

# On SQLite only INTEGER makes a primary key the table's own order instead of a second index.
RowKey = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

OPEN: Final = "state IN ('scheduled', 'held', 'queued', 'running', 'retrying')"
"""The SQL condition that a job is not final, as a text, so that both databases recognize that of the index."""
OPEN_ON: Final = {"postgresql": text(OPEN), "sqlite": text(OPEN.replace("state", "+state"))}
"""The same by dialect. SQLite has no statistics, so it would read all jobs of these states: half a second for a
million. The plus keeps it from the index of the states, and leaves it that of these jobs.
"""

TIMED: Final = (
    "(state IN ('scheduled', 'retrying') OR (state = 'queued' AND placed = 0)) "
    "AND NOT imported AND submitted_at IS NOT NULL"
)
"""The SQL condition of ``Job.awaits_placement`` without the held jobs, for the same reason as a text."""
TIMED_ON: Final = {"postgresql": text(TIMED), "sqlite": text(TIMED.replace("state", "+state"))}
"""The same by dialect, as ``OPEN_ON``."""

HELD: Final = "(state = 'held' AND NOT imported)"
"""The SQL condition that the job waits for its gates."""

HAS_SLOTS: Final = "has_slots"
"""The SQL condition of ``Job.has_slots``."""

_FAILED: Final = text("failure IS NOT NULL")

_HAS_GATES: Final = text("gate_group IS NOT NULL")

_IN_FLOW: Final = text("flow IS NOT NULL")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("type", Key, nullable=False),
    Column("state", Key, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    # JSON as text, not jsonb: numbers come out exactly as they went in.
    Column("payload", Text),
    Column("payload_version", BigInteger),
    Column("result", Text),
    Column("error", Text),
    Column("progress", Text),
    Column("queue", Key),
    Column("labels", Text),
    Column("correlation_id", Text),
    Column("reply_to", Text),
    Column("timeout", Double),
    Column("max_attempts", BigInteger),
    Column("submitted_at", UtcTime),
    Column("run_at", UtcTime),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("reason", Text),
    Column("execution", Text),
    Column("superseded", Text),
    Column("progress_n", BigInteger, nullable=False),
    Column("placed", BigInteger, nullable=False),
    Column("rescues", BigInteger, nullable=False),
    Column("deferred_since", UtcTime),
    Column("failure", Key),
    Column("duplicate_of", Text),
    Column("gates", Text),
    Column("gate_group", Key),
    Column("rank", BigInteger),
    Column("has_slots", Boolean, nullable=False, server_default=text("false")),
    Column("flow", Key),
    Column("node", Key),
    Column("item", BigInteger),
    Column("depth", BigInteger, nullable=False, server_default=text("0")),
    Column("follow_ups", Text),
    Column("signals", Text),
    Column("traceparent", Text),
    Column("imported", Boolean, nullable=False, server_default=text("false")),
    Column("cursor", BigInteger, nullable=False),
    # Each is for lists that are filtered by its column, newest first, from any id on.
    Index("jobs_by_type", "type", "id"),
    Index("jobs_by_state", "state", "id"),
    Index("jobs_by_queue", "queue", "id"),
    Index("jobs_by_failure", "failure", "id", sqlite_where=_FAILED, postgresql_where=_FAILED),
    # For overdue jobs. It contains open jobs only, so it stays small.
    Index("jobs_open", "queue", "run_at", sqlite_where=OPEN_ON["sqlite"], postgresql_where=text(OPEN)),
    # For the work that is to be placed, the earliest first. With the queue, so that others can be skipped.
    Index("jobs_timed", "run_at", "id", "queue", sqlite_where=TIMED_ON["sqlite"], postgresql_where=text(TIMED)),
    # For the next jobs of a group, and for the jobs that have slots.
    Index("jobs_held", "gate_group", "rank", "id", sqlite_where=text(HELD), postgresql_where=text(HELD)),
    Index("jobs_with_slots", "id", sqlite_where=text(HAS_SLOTS), postgresql_where=text(HAS_SLOTS)),
    # For the jobs with an ordering key, newest first.
    Index("jobs_by_gate_group", "gate_group", "id", sqlite_where=_HAS_GATES, postgresql_where=_HAS_GATES),
    # For the jobs of a flow.
    Index("jobs_by_flow", "flow", "node", "item", sqlite_where=_IN_FLOW, postgresql_where=_IN_FLOW),
)

_SNAPSHOT: Final = text("snapshot IS NOT NULL")

job_labels = Table(
    "job_labels",
    metadata,
    Column("name", Key, primary_key=True),
    Column("value", Key, primary_key=True),
    Column("job_id", Key, primary_key=True),
    sqlite_with_rowid=False,
)

history = Table(
    "history",
    metadata,
    Column("cursor", RowKey, primary_key=True, autoincrement=False),
    Column("job_id", Key, nullable=False),
    Column("name", Text, nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("accepted", Boolean, nullable=False),
    # The state and the reason of the job after the event, for lists of the past.
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("event", PackedEvent, nullable=False),
    # Of some events: the whole job after it, as JSON, without its payload.
    Column("snapshot", Text),
    Index("history_by_job", "job_id", "cursor"),
    Index("history_snapshots", "job_id", "cursor", sqlite_where=_SNAPSHOT, postgresql_where=_SNAPSHOT),
)

unreadable = Table(
    "unreadable",
    metadata,
    Column("cursor", RowKey, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)


def _tally(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("measure", Key, primary_key=True),
        Column("minute", BigInteger, primary_key=True),
        Column("type", Key, primary_key=True),
        Column("queue", Key, primary_key=True),
        Column("bucket", BigInteger, primary_key=True),
        Column("n", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


# Sums, to which each batch adds. ``tallies.TallyKey`` explains the columns of the key.
tally = _tally("tally")

# What the jobs that retention removed have added to ``tally``. Their events are not kept, so a rebuild takes it from
# here.
tally_of_removed = _tally("tally_of_removed")

# The groups of failures. ``first`` and ``last``: the times of their first and last event. ``newest``: the highest
# cursor of their events, which retention may have removed from the history.
failures = Table(
    "failures",
    metadata,
    Column("id", Key, primary_key=True),
    Column("type", Key, nullable=False),
    Column("reason", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("where", Text),
    Column("first", UtcTime, nullable=False),
    Column("last", UtcTime, nullable=False),
    Column("newest", BigInteger, nullable=False),
)

barriers = Table(
    "barriers",
    metadata,
    Column("process", Key, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

# The table of the producer, which is no part of the fold.
idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("job_id", Key, nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("at", Double, nullable=False),
    Index("idempotency_by_job", "job_id"),
    Index("idempotency_by_age", "at"),
)

# Messages of the dead queue that are no job.
dead = Table(
    "dead",
    metadata,
    Column("id", RowKey, primary_key=True, autoincrement=True),
    Column("message_id", Text, nullable=False, unique=True),
    Column("at", UtcTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# How far each durable catch-up subscription has read. Times are of the database's clock.
positions = Table(
    "positions",
    metadata,
    Column("name", Key, primary_key=True),
    Column("cursor", BigInteger, nullable=False),
    Column("moved_at", Double, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double),
)

# Jobs that retention removed: no late event restores one. ``at``: when, by the database's clock.
tombstones = Table(
    "tombstones",
    metadata,
    Column("job_id", Key, primary_key=True),
    Column("at", Double, nullable=False),
)

# Moments that a projector notes for the next one, by the clock of its host; see ``view.records.rates``. Not part of
# the fold.
rates = Table(
    "rates",
    metadata,
    Column("name", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("at", Double, nullable=False, index=True),
)

# The states of long tasks, as JSON. ``at``: when the state changed last, by the database's clock.
tasks = Table(
    "tasks",
    metadata,
    Column("key", Key, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# The last sign of life of each worker, as JSON. ``at``: when it came, by the database's clock. No part of the fold.
workers = Table(
    "workers",
    metadata,
    Column("id", Key, primary_key=True),
    Column("sign", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# The endpoints of webhooks. They are configuration, no part of the fold, and their secrets are encrypted. ``filter``:
# an EventFilter as JSON. ``cursor``: up to where events have become deliveries; ``replay_to``: up to where failed
# deliveries are made again. ``revision`` goes up with each change of a user. Times are seconds of the database's clock.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("filter", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("old_secret", LargeBinary),
    Column("old_until", Double),
    Column("cursor", BigInteger, nullable=False),
    Column("replay_to", BigInteger, nullable=False, server_default=text("0")),
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("disabled_because", Text),
    Column("failing_since", Double),
    Column("last_error", Text),
    Column("created_at", Double, nullable=False),
)

# API keys. They are configuration, no part of the fold. ``hash``: SHA-256 of the key; the key itself is nowhere.
# ``old_hash`` is valid until ``old_until``. ``scopes`` and ``types``: JSON lists. ``rate``: requests in a second. Times
# are seconds of the database's clock.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("old_hash", LargeBinary),
    Column("old_until", Double),
    Column("scopes", Text, nullable=False),
    Column("types", Text, nullable=False),
    Column("rate", Double),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("used_at", Double),
)

# The rebuild in progress: a second generation of the folded tables, folded up to ``cursor``. ``key``: who makes it.
# The other columns are those of ``values.ByJob``.
rebuild = Table(
    "rebuild",
    metadata,
    Column("id", RowKey, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("by_job_end", BigInteger),
    Column("job_id", Key),
    Column("event", BigInteger),
    Column("events", BigInteger),
    CheckConstraint("id = 1", name="rebuild_is_one_row"),
)

# How far the relay has published the history. ``mode``: see schemas.events.RelayMode.
relay = Table(
    "relay",
    metadata,
    Column("id", RowKey, primary_key=True, autoincrement=False),
    Column("mode", Text, nullable=False, server_default=text("'final'")),
    Column("cursor", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False, server_default=text("0")),
    Column("refused", BigInteger, nullable=False, server_default=text("0")),
    Column("stalls", BigInteger, nullable=False, server_default=text("0")),
    Column("fault", Text),
    CheckConstraint("id = 1", name="relay_is_one_row"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("id", RowKey, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("offset", BigInteger),
    Column("digest", Text),
    Column("owner", Text),
    Column("lease_until", Double),
    Column("gap_kind", Text),
    Column("gap_detail", Text),
    # Behind this cursor the history is complete; before it events are missing.
    Column("horizon", BigInteger, nullable=False, server_default=text("0")),
    # The number of the serving generation of the folded tables, from 1.
    Column("generation", BigInteger, nullable=False, server_default=text("1")),
    CheckConstraint("id = 1", name="checkpoint_is_one_row"),
)


@dataclass(frozen=True, slots=True)
class FoldedTables:
    """The tables that only the fold writes, and that a rebuild makes again."""

    jobs: Table
    job_labels: Table
    history: Table
    unreadable: Table
    tally: Table
    failures: Table

    def each(self) -> tuple[Table, ...]:
        """Return all of them, always in the same order."""
        return (self.jobs, self.job_labels, self.history, self.unreadable, self.tally, self.failures)


def _order_indexes(table: Table) -> None:
    """Let the indexes of a table be created in the order of their names, not of a set.

    SQLite chooses between indexes that look equally good by that order, so statements were executed differently from
    one installation to the next.
    """
    table.indexes = OrderedSet(sorted(table.indexes, key=lambda index: str(index.name)))


for _table in metadata.tables.values():
    _order_indexes(_table)

SERVING: Final = FoldedTables(jobs, job_labels, history, unreadable, tally, failures)


@cache
def generation(number: int) -> FoldedTables:
    """Return the tables of a generation that does not serve yet. When it does, they take the names of the old ones.

    Indexes and constraints keep the number in their names: SQLite cannot rename them, and no statement uses the names.
    """
    own = MetaData()

    def copy(table: Table) -> Table:
        made = table.to_metadata(own, name=f"{table.name}_g{number}")
        for index in made.indexes:
            index.name = quoted_name(f"{index.name}_g{number}", None)
        _order_indexes(made)
        return made

    return FoldedTables(*(copy(table) for table in SERVING.each()))
