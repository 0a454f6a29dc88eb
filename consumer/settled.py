"""What this worker has settled lately."""

from collections import OrderedDict
from typing import Final

Key = tuple[str, int, int]
"""(job id, run, attempt)"""

REMEMBERED: Final = 10_000


class Settled:
    """The last attempts whose outcome is on the tape: their redelivery (an ack that was lost) is not run again."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def add(self, key: Key) -> None:
        """Remember ``key``, and forget the oldest beyond the size."""
        self._keys[key] = None
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)

    def __contains__(self, key: Key) -> bool:
        return key in self._keys
