"""What a relay has in flight, and how far everything before is settled."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


class PublishProgress:
    """Everything up to ``cursor`` is settled; ``delivered`` and ``refused`` are counted since it was last saved."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.delivered = 0
        self.refused = 0
        self.unsaved = False

    def reach(self, cursor: int, *, delivered: int = 0, refused: int = 0) -> None:
        """Go on to ``cursor``, never back."""
        if cursor > self.cursor or delivered or refused:
            self.cursor = max(cursor, self.cursor)
            self.delivered += delivered
            self.refused += refused
            self.unsaved = True

    def saved(self) -> None:
        """It was written."""
        self.delivered = self.refused = 0
        self.unsaved = False


async def publish_all(publishes: Sequence[Coroutine[Any, Any, None]], limit: float) -> list[BaseException | None]:
    """Run them at once; what each raised, in their order, None for a confirm.

    When none ends for ``limit`` seconds, what goes on is broken off: its outcome is a CancelledError.
    """
    clock = asyncio.get_running_loop().time
    last = clock()

    def ended(_: "asyncio.Task[None]") -> None:
        nonlocal last
        last = clock()

    tasks = [asyncio.create_task(publish) for publish in publishes]
    for task in tasks:
        task.add_done_callback(ended)
    pending = set(tasks)
    try:
        while pending and (left := last + limit - clock()) > 0:
            _, pending = await asyncio.wait(pending, timeout=left)
    finally:
        for task in pending:
            task.cancel()
    return list(await asyncio.gather(*tasks, return_exceptions=True))
