"""Notifies API processes of what is committed, so that they need not poll the view."""

import asyncio
from collections.abc import Mapping
from uuid import uuid4

from aiormq import spec

from jobtape.broker.channels import TRANSIENT
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import Link
from jobtape.schemas.messages.commit_notice import MOST_JOBS, CommitNotice, encode_notice
from jobtape.schemas.topology import Topology


class CommitNotifier:
    """Publishes notices over ``link`` to the fan-out exchange for commits, which drops them when nobody listens.

    A notice may be lost: the next one shows that, and API processes poll in case there is none. At most one is on its
    way; commits meanwhile are notified together.
    """

    def __init__(self, link: Link, topology: Topology) -> None:
        self._channel = ConfirmedChannel(link, topology.committed.name)
        self._source = uuid4().hex
        self._number = 0
        self._sent: asyncio.Future[None] | None = None
        self._jobs: dict[str, bool] = {}
        self._waiting = False

    def notify(self, jobs: Mapping[str, bool]) -> None:
        """Notify that events of ``jobs`` (by id whether the job has ended) were committed; also when there are none, as
        streams show positions.
        """
        # With more the notice names none; without a bound they would pile up while the broker is away.
        if len(self._jobs) <= MOST_JOBS:
            self._jobs.update(jobs)
        self._waiting = True
        if self._sent is None and self._channel.link.up:
            self._send()

    def _send(self) -> None:
        self._number += 1
        jobs = None if len(self._jobs) > MOST_JOBS else self._jobs
        self._jobs, self._waiting = {}, False
        body = encode_notice(CommitNotice(self._source, self._number, jobs))
        self._sent = self._channel.publish(body, "", spec.Basic.Properties(delivery_mode=TRANSIENT), mandatory=False)
        self._sent.add_done_callback(self._on_sent)

    def _on_sent(self, sent: "asyncio.Future[None]") -> None:
        self._sent = None
        lost = sent.cancelled() or sent.exception() is not None
        if self._waiting and not lost and self._channel.link.up:
            self._send()
