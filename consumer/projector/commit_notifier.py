"""Notifies API processes that something new is committed, so that they need not poll the view."""

import asyncio
from typing import Final

from aiormq import spec

from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import Link
from jobtape.schemas.topology import Topology

TRANSIENT: Final = 1


class CommitNotifier:
    """Publishes a notification over ``link`` to the fan-out exchange for commits, which drops it when nobody listens.

    A notification may be lost, and API processes poll in case it is. At most one is on its way; commits meanwhile are
    notified together.
    """

    def __init__(self, link: Link, topology: Topology) -> None:
        self._channel = ConfirmedChannel(link, topology.committed.name)
        self._sent: asyncio.Future[None] | None = None
        self._offset: int | None = None

    def notify(self, offset: int | None) -> None:
        """Notify that the view contains everything up to ``offset`` of the tape."""
        self._offset = offset
        if self._sent is None and self._channel.link.up:
            self._send()

    def _send(self) -> None:
        body = str(self._offset).encode()
        self._offset = None
        self._sent = self._channel.publish(body, "", spec.Basic.Properties(delivery_mode=TRANSIENT), mandatory=False)
        self._sent.add_done_callback(self._on_sent)

    def _on_sent(self, sent: "asyncio.Future[None]") -> None:
        self._sent = None
        lost = sent.cancelled() or sent.exception() is not None
        if self._offset is not None and not lost and self._channel.link.up:
            self._send()
