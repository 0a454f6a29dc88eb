"""The newest accepted events, limited in number and size, which all listeners share."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from jobtape.view.store import CommittedEvent

MAX_ENTRIES: Final = 5000
MAX_BYTES: Final = 16 * 1024 * 1024
JOB_BYTES: Final = 2048
"""About how many bytes an entry takes besides its event."""
LARGE: Final = 16 * 1024
"""An event with so many characters is encoded in the thread that read it, so that the loop does not wait."""


def encode_large(events: Sequence[CommittedEvent]) -> Sequence[CommittedEvent]:
    """Encode the large ones of ``events``, and return all."""
    for event in events:
        if len(event.event) >= LARGE:
            _ = event.delivered
    return events


def _size(event: CommittedEvent) -> int:
    """Return about how many bytes it takes, including its JSON."""
    return JOB_BYTES + 2 * len(event.event)


class EventBuffer:
    """Has every event after the cursor ``floor``, in the tape's order."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.floor = 0
        self.bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._cursors: list[int] = []
        self._entries: list[CommittedEvent] = []

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, floor: int) -> None:
        """Remove everything and start again after ``floor``."""
        self.floor, self.bytes = floor, 0
        self._cursors.clear()
        self._entries.clear()

    def add(self, entries: Sequence[CommittedEvent]) -> None:
        """Append the next events, and drop the oldest when there are too many."""
        self._entries += entries
        self._cursors += [entry.cursor for entry in entries]
        self.bytes += sum(map(_size, entries))
        dropped = 0
        while len(self._entries) - dropped > self._max_entries or self.bytes > self._max_bytes:
            self.bytes -= _size(self._entries[dropped])
            dropped += 1
        if dropped:
            self.floor = self._cursors[dropped - 1]
            del self._cursors[:dropped], self._entries[:dropped]

    def after(self, cursor: int) -> Iterator[CommittedEvent]:
        """Yield the events after ``cursor``, which must not be before ``floor``. Do not keep it over an ``await``."""
        for index in range(bisect_right(self._cursors, cursor), len(self._entries)):
            yield self._entries[index]
