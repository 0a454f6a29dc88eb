"""The tables of outbox and inbox, which belong to the user's database and migrations."""

from typing import Final

from sqlalchemy import (
    BLANK_SCHEMA,
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    text,
)


def outbox_table(metadata: MetaData) -> Table:
    """Add the table ``jobtape_outbox`` to ``metadata``, for your migrations, and return it.

    It is in the default schema of the connection, whatever the schema of ``metadata`` is.
    """
    return Table(
        "jobtape_outbox",
        metadata,
        Column("job_id", String(36), primary_key=True),
        Column("job_type", String(120), nullable=False),
        Column("job_order", Text, nullable=False),
        Column("causation_id", String(255)),
        # The W3C trace context of the code that submitted the job.
        Column("traceparent", String(55)),
        # In UTC. SQLite has no zones.
        Column("submitted_at", DateTime(timezone=True), nullable=False),
        # Seconds since 1970 by the database's clock. Before that no forwarder takes the row.
        Column("due", Double, nullable=False, server_default=text("0")),
        # How often the job was, or may have been, published.
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("taken_by", String(36)),
        # Why the job cannot be published.
        Column("error", Text),
        schema=BLANK_SCHEMA,
    )


def inbox_table(metadata: MetaData) -> Table:
    """Add the table ``jobtape_inbox`` to ``metadata``, for your migrations, and return it.

    It is in the default schema of the connection, whatever the schema of ``metadata`` is.
    """
    return Table(
        "jobtape_inbox",
        metadata,
        Column("job_id", String(36), primary_key=True),
        Column("run", BigInteger, primary_key=True, autoincrement=False),
        Column("step", String(120), primary_key=True),
        Column("result", Text),
        Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        schema=BLANK_SCHEMA,
    )


_own: Final = MetaData()
OUTBOX: Final = outbox_table(_own)
INBOX: Final = inbox_table(_own)
"""What Jobtape's own statements use, whatever metadata the user has."""
