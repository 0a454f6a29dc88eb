"""The newest accepted events, as many as a bound of count and size leaves: what those who listen share."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from jobtape.schemas.delivered_event import encode_delivered
from jobtape.view.store import CommittedEvent

MAX_ENTRIES: Final = 5000
MAX_BYTES: Final = 16 * 1024 * 1024
JOB_BYTES: Final = 2048
"""About what an entry takes besides its event."""
LARGE: Final = 16 * 1024
"""Characters from which on an event is made ready in the thread that read it, so that nobody else is kept waiting."""


class BufferedEvent:
    """An accepted event. ``delivered``: the JSON that subscribers get, made when it is first needed, once for all."""

    __slots__ = ("_delivered", "row")

    def __init__(self, row: CommittedEvent) -> None:
        self.row = row
        self._delivered = encode_delivered(row.event, row.cursor) if len(row.event) >= LARGE else b""

    @property
    def cursor(self) -> int:
        """Where it stands."""
        return self.row.cursor

    @property
    def name(self) -> str:
        """What happened."""
        return self.row.name

    @property
    def delivered(self) -> bytes:
        """The CloudEvent with its cursor."""
        if not self._delivered:
            self._delivered = encode_delivered(self.row.event, self.row.cursor)
        return self._delivered

    @property
    def size(self) -> int:
        """About how many bytes it takes, its JSON included."""
        return JOB_BYTES + 2 * len(self.row.event)


class EventBuffer:
    """Complete from behind the cursor ``floor`` on, in the tape's order."""

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
        """Start again, with nothing, behind ``floor``."""
        self.floor, self.bytes = floor, 0
        self._cursors.clear()
        self._entries.clear()

    def add(self, entries: Sequence[BufferedEvent]) -> None:
        """Append what follows; the oldest make room."""
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
        """Those behind ``cursor``, which is not before ``floor``. Not to be kept over an ``await``."""
        for place in range(bisect_right(self._cursors, cursor), len(self._entries)):
            yield self._entries[place]
