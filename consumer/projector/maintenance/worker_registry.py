"""Collects the signs of life of the workers, so that every API process can show them.

A sign may be lost. After a change of projectors the view has the old signs until the next ones come.
"""

import asyncio
from typing import Final

from jobtape.broker.channels import consuming_exchange
from jobtape.broker.frames import Delivered
from jobtape.broker.tasks import first_of, wait_for_stop
from jobtape.consumer.projector.active_projector import ActiveProjector, NotActive
from jobtape.schemas.messages.worker_sign import WorkerSign, decode_sign

PAUSE: Final = 1.0
"""Seconds in which signs are gathered for one transaction."""
MOST_SIGNS: Final = 1000
"""Signs on the queue, and workers whose signs are gathered; further ones are dropped."""


class WorkerRegistry:
    """Writes the signs to the view."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._signs: dict[str, WorkerSign] = {}
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled or until the channel ends. Raises NotActive, ViewUnavailable and BROKER_ERRORS."""
        connection = await self._active.link.connection()
        exchange = self._active.topology.workers.name
        async with consuming_exchange(connection, exchange, self._on_signs, most=MOST_SIGNS) as ended:
            while not ended.is_set():
                await first_of(self._arrived.wait(), ended)
                self._arrived.clear()
                signs, self._signs = self._signs, {}
                if signs and not await self._active.call(
                    self._active.store.worker_signs.note, self._active.owner, list(signs.values())
                ):
                    raise NotActive
                await wait_for_stop(ended, PAUSE)

    def _on_signs(self, messages: list[Delivered]) -> None:
        for message in messages:
            sign = decode_sign(message.body)
            if sign is not None and (len(self._signs) < MOST_SIGNS or sign.id in self._signs):
                self._signs[sign.id] = sign
        self._arrived.set()
