"""The first tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    row_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    # On SQLite times are ISO 8601 text in UTC.
    utc_time = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
    op.create_table(
        "jobs",
        sa.Column("id", key, primary_key=True),
        sa.Column("type", key, nullable=False),
        sa.Column("state", key, nullable=False),
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.Text),
        sa.Column("payload_version", sa.BigInteger),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("progress", sa.Text),
        sa.Column("queue", key),
        sa.Column("labels", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("reply_to", sa.Text),
        sa.Column("timeout", sa.Double),
        sa.Column("max_attempts", sa.BigInteger),
        sa.Column("submitted_at", utc_time),
        sa.Column("run_at", utc_time),
        sa.Column("started_at", utc_time),
        sa.Column("finished_at", utc_time),
        sa.Column("reason", sa.Text),
        sa.Column("execution", sa.Text),
        sa.Column("superseded", sa.Text),
        sa.Column("progress_n", sa.BigInteger, nullable=False),
        sa.Column("placed", sa.BigInteger, nullable=False),
        sa.Column("rescues", sa.BigInteger, nullable=False),
        sa.Column("deferred_since", utc_time),
        sa.Column("imported", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("cursor", sa.BigInteger, nullable=False),
    )
    for column in ("type", "state", "queue"):
        op.create_index(f"jobs_by_{column}", "jobs", [column, "id"])
    is_open = sa.text("state IN ('scheduled', 'queued', 'running', 'retrying')")
    op.create_index("jobs_open", "jobs", ["queue", "run_at"], sqlite_where=is_open, postgresql_where=is_open)
    is_waiting = sa.text(
        "(state IN ('scheduled', 'retrying') OR (state = 'queued' AND placed = 0)) "
        "AND NOT imported AND submitted_at IS NOT NULL"
    )
    waiting = ["run_at", "id", "queue"]
    op.create_index("jobs_waiting", "jobs", waiting, sqlite_where=is_waiting, postgresql_where=is_waiting)
    op.create_table(
        "job_labels",
        sa.Column("name", key, primary_key=True),
        sa.Column("value", key, primary_key=True),
        sa.Column("job_id", key, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "history",
        sa.Column("cursor", row_key, primary_key=True, autoincrement=False),
        sa.Column("job_id", key, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("time", utc_time, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text),
    )
    op.create_index("history_by_job", "history", ["job_id", "cursor"])
    op.create_table(
        "unreadable",
        sa.Column("cursor", row_key, primary_key=True, autoincrement=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "counts",
        sa.Column("job_type", key, primary_key=True),
        sa.Column("event", key, primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "barriers",
        sa.Column("process", key, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope", key, primary_key=True),
        sa.Column("key", key, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("job_id", key, nullable=False),
        sa.Column("time", utc_time, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("idempotency_by_job", "idempotency", ["job_id"])
    op.create_index("idempotency_by_age", "idempotency", ["at"])
    op.create_table(
        "dead",
        sa.Column("id", row_key, primary_key=True, autoincrement=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("at", utc_time, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "positions",
        sa.Column("name", key, primary_key=True),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("moved_at", sa.Double, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double),
    )
    op.create_table(
        "tombstones",
        sa.Column("job_id", key, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("key", key, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "rebuild",
        sa.Column("id", row_key, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("by_job_end", sa.BigInteger),
        sa.Column("job_id", key),
        sa.Column("event", sa.BigInteger),
        sa.Column("events", sa.BigInteger),
        sa.CheckConstraint("id = 1", name="rebuild_is_one_row"),
    )
    op.create_table(
        "relay",
        sa.Column("id", row_key, primary_key=True, autoincrement=False),
        sa.Column("mode", sa.Text, nullable=False, server_default=sa.text("'final'")),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("delivered", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("refused", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("stalls", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("trouble", sa.Text),
        sa.CheckConstraint("id = 1", name="relay_is_one_row"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("id", row_key, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger),
        sa.Column("digest", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("gap_kind", sa.Text),
        sa.Column("gap_detail", sa.Text),
        sa.Column("horizon", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.CheckConstraint("id = 1", name="checkpoint_is_one_row"),
    )


def downgrade() -> None:
    """Refuse: an older view is made by folding the tape again."""
    raise CommandError("there is no older version: create a new database, into which a projector folds the tape")
