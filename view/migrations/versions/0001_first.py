"""The first tables.

Nothing is released yet, so they are those of ``view.tables``. The first release writes them down here, and later
versions change them by migrations of their own.

Revision ID: 0001
"""

from alembic import op
from alembic.util import CommandError

from jobtape.view.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)


def downgrade() -> None:
    """Refuse: an older view is made by folding the tape again."""
    raise CommandError("there is no older version: create a new database, into which a projector folds the tape")
