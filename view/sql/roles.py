"""What a connection to the database is for, and how long it waits."""

from typing import Final, Literal

Role = Literal["read", "write", "migrate"]

PATIENCE: Final = 5.0
"""Seconds to wait for a connection, a lock, and for the answer to a read."""
WRITE_LIMIT: Final = 60.0
"""Seconds that one statement of a write may take."""
MIGRATE_PATIENCE: Final = 120.0
"""Seconds to wait for another process that migrates."""
