"""What this worker has settled lately."""

from collections import OrderedDict
from typing import Final

Key = tuple[str, int, int]
"""(job id, run, attempt)"""

REMEMBERED: Final = 10_000


class RecentlySettled:
    """The last attempts whose outcome was put on the tape: their redelivery (an ack that was lost) is not run again.

    Unless the work was placed again: then the tape has lost that outcome (the broker died between two of its disks'
    writes), and it takes another execution. ``n`` counts the placements of a run.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._keys: OrderedDict[Key, int] = OrderedDict()

    def add(self, key: Key, n: int) -> None:
        """Remember that the ``n``-th placement was settled, and forget the oldest beyond the size."""
        self._keys[key] = n
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)

    def covers(self, key: Key, n: int) -> bool:
        """Whether the ``n``-th placement, or a later one, was settled."""
        return self._keys.get(key, 0) >= n

    def __contains__(self, key: Key) -> bool:
        return key in self._keys
