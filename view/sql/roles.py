"""The uses of a connection to the database, and their time limits in seconds."""

from typing import Final, Literal

Role = Literal["read", "write", "fold", "migrate"]

TIMEOUT: Final = 5.0
"""For a connection, for a lock, and for the answer to a read."""
WRITE_TIMEOUT: Final = 60.0
"""For one statement of a write."""
MIGRATE_TIMEOUT: Final = 120.0
"""For another process that migrates."""
