"""Publishes a worker's signs of life, which show what it runs, while the worker works and when it stops."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import islice
from typing import Final, Literal
from uuid import uuid4

from aiormq import spec

from jobtape.broker.channels import TRANSIENT
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.consumer.worker.execution import Execution
from jobtape.schemas.messages.worker_sign import (
    BUSY_INTERVAL,
    IDLE_INTERVAL,
    MOST_EXECUTIONS,
    MOST_JOB_TYPES,
    MOST_WAITING,
    RunningExecution,
    WorkerSign,
    encode_sign,
)
from jobtape.schemas.topology import Topology

log = logging.getLogger(__name__)

STOP_TIMEOUT: Final = 1.0
"""Seconds within which the broker must have the last sign."""


WaitingJobs = Callable[[], Iterable[str]]
"""Returns the ids of the jobs that wait in a worker for a slot."""
WorkerState = Callable[[], tuple[Literal["alive", "draining"], str | None]]
"""Returns the state of a worker, and why it takes no jobs; None while it does."""


class SignsOfLife:
    """The signs of one worker, over ``link`` to an exchange that drops them when no projector collects them."""

    def __init__(
        self,
        link: Link,
        topology: Topology,
        *,
        name: str,
        slots: int,
        job_types: Iterable[str],
        state: WorkerState,
        waiting: WaitingJobs,
    ) -> None:
        self.executions: dict[Execution, None] = {}
        """The executions that have a slot, the oldest first."""
        self._channel = ConfirmedChannel(link, topology.workers.name)
        self._state = state
        self._waiting = waiting
        self._task: asyncio.Task[None] | None = None
        self._blank = WorkerSign(
            id=uuid4().hex,
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=_version(),
            state="alive",
            fault=None,
            started_at=datetime.now(UTC),
            queues=topology.queues,
            job_types=tuple(sorted(job_types)[:MOST_JOB_TYPES]),
            slots=slots,
            running=0,
            executions=(),
            waiting=(),
        )

    def start(self) -> None:
        """Begin to publish."""
        self._task = asyncio.create_task(self._run(), name="signs of life")

    def end(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()

    async def publish_stopped(self) -> None:
        """Publish that the worker has stopped, unless the broker is away, and no more."""
        self.end()
        if self._channel.link.up:
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._publish(replace(self._blank, state="stopped"))

    async def _run(self) -> None:
        last: WorkerSign | None = None
        sent = 0.0
        while True:
            await self._channel.link.connection()
            sign = self._sign()
            if sign != last or time.monotonic() - sent >= IDLE_INTERVAL:
                try:
                    await self._publish(sign)
                    last, sent = sign, time.monotonic()
                except BROKER_ERRORS as error:
                    log.debug("a sign of life was lost, the next one replaces it: %s", reason_of(error))
                except Exception:
                    log.exception("a sign of life could not be published")
            await asyncio.sleep(BUSY_INTERVAL)

    def _publish(self, sign: WorkerSign) -> "asyncio.Future[None]":
        properties = spec.Basic.Properties(delivery_mode=TRANSIENT)
        return self._channel.publish(encode_sign(sign), "", properties, mandatory=False)

    def _sign(self) -> WorkerSign:
        state, fault = self._state()
        shown = [_shown(execution) for execution, _ in zip(self.executions, range(MOST_EXECUTIONS), strict=False)]
        return replace(
            self._blank,
            state=state,
            fault=fault,
            running=len(self.executions),
            executions=tuple(shown),
            waiting=tuple(islice(self._waiting(), MOST_WAITING)),
        )


@cache
def _version() -> str:
    """Return the version of Jobtape. Finding it takes milliseconds."""
    return version("jobtape")


def _shown(execution: Execution) -> RunningExecution:
    data = execution.event.data
    return RunningExecution(
        execution.event.subject,
        execution.order.type,
        data.run,
        data.attempt,
        execution.started_at,
        execution.settled,
    )
