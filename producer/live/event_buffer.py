"""The newest accepted events, limited in number and size, which all listeners share."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from jobtape.schemas.delivered_event import encode_delivered
from jobtape.view.store import CommittedEvent

MAX_ENTRIES: Final = 5000
MAX_BYTES: Final = 16 * 1024 * 1024
JOB_BYTES: Final = 2048
"""About how many bytes an entry takes besides its event."""
LARGE: Final = 16 * 1024
"""An event with so many characters is encoded in the thread that read it, so that the loop does not wait."""


class BufferedEvent:
    """An accepted event, which is encoded once for all listeners."""

    __slots__ = ("_delivered", "row")

    def __init__(self, row: CommittedEvent) -> None:
        self.row = row
        self._delivered = encode_delivered(row.event, row.cursor) if len(row.event) >= LARGE else b""

    @property
    def cursor(self) -> int:
        """Its position on the tape."""
        return self.row.cursor

    @property
    def name(self) -> str:
        """Its name, such as ``started``."""
        return self.row.name

    @property
    def delivered(self) -> bytes:
        """The JSON that subscribers get: the CloudEvent with its cursor."""
        if not self._delivered:
            self._delivered = encode_delivered(self.row.event, self.row.cursor)
        return self._delivered

    @property
    def size(self) -> int:
        """About how many bytes it takes, including its JSON."""
        return JOB_BYTES + 2 * len(self.row.event)


class EventBuffer:
    """Has every event after the cursor ``floor``, in the tape's order."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.floor = 0
        self.bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._cursors: list[int] = []
        self._entries: list[BufferedEvent] = []

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, floor: int) -> None:
        """Remove everything and start again behind ``floor``."""
        self.floor, self.bytes = floor, 0
        self._cursors.clear()
        self._entries.clear()

    def add(self, entries: Sequence[BufferedEvent]) -> None:
        """Append the next events, and drop the oldest when there are too many."""
        self._entries += entries
        self._cursors += [entry.cursor for entry in entries]
        self.bytes += sum(entry.size for entry in entries)
        dropped = 0
        while len(self._entries) - dropped > self._max_entries or self.bytes > self._max_bytes:
            self.bytes -= self._entries[dropped].size
            dropped += 1
        if dropped:
            self.floor = self._cursors[dropped - 1]
            del self._cursors[:dropped], self._entries[:dropped]

    def after(self, cursor: int) -> Iterator[BufferedEvent]:
        """Yield the events behind ``cursor``, which must not be before ``floor``. Do not keep it over an ``await``."""
        for index in range(bisect_right(self._cursors, cursor), len(self._entries)):
            yield self._entries[index]
