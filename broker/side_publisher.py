"""Publishes to one exchange other than the tape's, within a deadline."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from aiormq import spec

from jobtape.broker.confirmed_channel import PERSISTENT, ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.schemas.errors import BrokerUnavailable

CONFIRM_TIMEOUT = 10.0


class SidePublisher:
    """Publishes to the exchange of that name (the default exchange: ``""``) over ``link``."""

    def __init__(self, link: Link, exchange: str) -> None:
        self._channel = ConfirmedChannel(link, exchange, renew=True)

    async def publish(
        self, body: bytes, key: str, *, headers: Mapping[str, str | int] | None = None, content_type: str | None = None
    ) -> None:
        """Returns when every queue that it was routed to has it. Raises BrokerUnavailable when no confirm came within
        10 s, or no queue was there: then it is not known whether somebody has it.
        """
        carried: dict[str, Any] = dict(headers or {})
        properties = spec.Basic.Properties(
            content_type=content_type,
            headers=carried,
            delivery_mode=PERSISTENT,
            # aiormq matches a returned message by its id, so each publish has its own
            message_id=uuid4().hex,
        )
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await self._channel.publish(body, key, properties, mandatory=True)
        except BROKER_ERRORS as error:
            trouble = self._channel.link.trouble or reason_of(error)
            raise BrokerUnavailable(
                f"not confirmed by the exchange {self._channel.exchange!r}: {trouble}; try again"
            ) from None
