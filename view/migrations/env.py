"""Alembic's entry: runs the migrations on the connection, and in the transaction, of ``view.sql.migrate``."""

from alembic import context

from jobtape.view.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
