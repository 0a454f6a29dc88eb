"""How long to wait before the next try: longer each time, and never the same for two clients."""

import random
from collections.abc import Iterator
from typing import Final

SHORTEST: Final = 0.1
LONGEST: Final = 5.0
GROWTH: Final = 1.7


def pauses(longest: float = LONGEST) -> Iterator[float]:
    """Seconds, without end."""
    pause = SHORTEST
    while True:
        # Clients that were cut off together must not come back together.
        yield pause * random.uniform(0.6, 1.0)  # noqa: S311  # nothing secret hangs on it
        pause = min(pause * GROWTH, longest)
