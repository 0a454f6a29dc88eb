"""Notes where the tape ends, so that others can say how many events the view is behind.

Only a projector may read the tape. It needs no note itself: it folds whatever comes.
"""

import asyncio
from typing import Final

from jobtape.broker.stream_reader import last_chunk
from jobtape.consumer.projector.active_projector import ActiveProjector, NotActive

EVERY: Final = 5.0
"""Seconds. ``checkpoint.END_KEPT`` is longer."""


class TapeEnd:
    """Reads one message of the tape each time, the first of what the broker has written last."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable, TapeMissing, NotActive and BROKER_ERRORS."""
        active = self._active
        while True:
            end = await last_chunk(await active.link.connection(), active.topology.log.name)
            if end is not None and not await active.call(active.store.note_tape_end, active.owner, end):
                raise NotActive
            await asyncio.sleep(EVERY)
