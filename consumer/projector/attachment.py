"""Attaches to the tape at the checkpoint, and makes sure that it is the same tape.

The broker says nothing when the position asked for is gone: it shows the first message that it still has, or, beyond
the end, nothing for ever. So the projector reads the message of the checkpoint itself once more and compares it.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from jobtape.broker.link import Connection
from jobtape.broker.publisher import Publisher
from jobtape.broker.stream_reader import StreamReader
from jobtape.consumer.folding import digest_of
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.view.store import Checkpoint, Gap

log = logging.getLogger(__name__)

WAY_OUT = "see docs/how-to/gaps.md: `jobtape init --accept-gap` goes on behind it"
SILENCE = 2.0
"""Seconds without the checkpoint's message until a barrier settles whether it will ever come."""


class GapFound(Exception):
    """The tape does not go on from the checkpoint."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.detail)
        self.gap = gap


@asynccontextmanager
async def attached(connection: Connection, publisher: Publisher, checkpoint: Checkpoint) -> AsyncIterator[StreamReader]:
    """A reader whose next message is the one behind ``checkpoint``.

    Raises GapFound when the tape is missing, is another one, or has lost messages behind the checkpoint;
    BrokerUnavailable when the broker does not answer.
    """
    name = publisher.topology.log.name
    try:
        if checkpoint.offset is None:
            async with StreamReader(connection, name, "first") as reader:
                yield reader
            return
        while True:
            async with StreamReader(connection, name, checkpoint.offset) as reader:
                if await _same_tape(reader, checkpoint):
                    yield reader
                    return
            await _settle_silence(connection, publisher, checkpoint)
    except TapeMissing:
        raise GapFound(
            Gap("tape-missing", f"the tape {name} is not on the broker, though the view was folded from it; {WAY_OUT}")
        ) from None


async def _same_tape(reader: StreamReader, checkpoint: Checkpoint) -> bool:
    """Read the checkpoint's own message. False when nothing comes; raises GapFound when it is not the same."""
    assert checkpoint.offset is not None
    first = await reader.read(1, timeout=SILENCE)
    if not first:
        return False
    (message,) = first
    if message.offset > checkpoint.offset:
        raise GapFound(
            Gap(
                "log-truncated",
                f"the tape begins at offset {message.offset}, the view ends at {checkpoint.offset}: retention has "
                f"dropped what lay between before it was folded; {WAY_OUT}",
            )
        )
    if message.offset < checkpoint.offset or digest_of(message) != checkpoint.digest:
        raise GapFound(_replaced(f"the message at offset {checkpoint.offset} is not the one that was folded"))
    return True


async def _settle_silence(connection: Connection, publisher: Publisher, checkpoint: Checkpoint) -> None:
    """Returns when the checkpoint's message must still come; raises GapFound when the tape ends before it."""
    assert checkpoint.offset is not None
    log.info("nothing at offset %d yet: looking where the tape ends", checkpoint.offset)
    await publisher.publish_barrier(f"projector-{uuid4().hex[:12]}", 1)
    async with StreamReader(connection, publisher.topology.log.name, "last") as reader:
        end = -1
        while tail := await reader.read(1000, timeout=SILENCE):
            end = max(end, tail[-1].offset)
            if end >= checkpoint.offset:
                return
    if end < 0:
        raise BrokerUnavailable("the tape shows nothing, not even the barrier just published; attach again")
    raise GapFound(_replaced(f"the tape ends at offset {end}, the view at {checkpoint.offset}"))


def _replaced(why: str) -> Gap:
    return Gap("log-replaced", f"the tape is a new one: {why}; {WAY_OUT}")
