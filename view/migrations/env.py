"""The entry point of Alembic: runs the migrations in the transaction of ``view.migrate``."""

from alembic import context

from jobtape.view.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
