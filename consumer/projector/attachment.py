"""Attaches to the tape at the checkpoint, and checks that it is still the same tape.

The broker does not say when a requested offset is gone: it delivers the first message that it still has, or nothing
when the offset is beyond the end. So the projector reads the checkpoint's own message again and compares digests.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from jobtape.broker.link import Connection
from jobtape.broker.publisher import Publisher
from jobtape.broker.stream_reader import StreamReader
from jobtape.consumer.folding import message_digest
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.view.values import Checkpoint, Gap, GapKind

log = logging.getLogger(__name__)

SILENCE = 2.0
"""Seconds without a message after which the reader looks for the end of the tape."""


class GapFound(Exception):
    """The tape does not continue from the checkpoint; ``gap`` says why."""

    def __init__(self, kind: GapKind, detail: str) -> None:
        detail = (
            f"{detail}; see docs/how-to/gaps.md: to go on without the missing events run `jobtape init --accept-gap`"
        )
        super().__init__(detail)
        self.gap = Gap(kind, detail)


@asynccontextmanager
async def attach(connection: Connection, publisher: Publisher, checkpoint: Checkpoint) -> AsyncIterator[StreamReader]:
    """Yield a reader whose next message is the one after ``checkpoint``.

    Raises GapFound when the tape is missing, was replaced, or has lost messages after the checkpoint, and
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
                if await _read_checkpoint(reader, checkpoint.offset, checkpoint.digest):
                    yield reader
                    return
            await _check_end(connection, publisher, checkpoint.offset)
    except TapeMissing:
        raise GapFound(
            "tape-missing", f"the tape {name} is not on the broker, though the view was folded from it"
        ) from None


async def _read_checkpoint(reader: StreamReader, offset: int, digest: str | None) -> bool:
    """Read the message at ``offset``, and return False when nothing arrives. Raises GapFound for another message."""
    messages = await reader.read(1, timeout=SILENCE)
    if not messages:
        return False
    (message,) = messages
    if message.offset > offset:
        raise GapFound(
            "tape-truncated",
            f"the tape begins at offset {message.offset}, the view ends at {offset}: retention has dropped the "
            "messages between them before they were folded",
        )
    if message.offset < offset or message_digest(message) != digest:
        raise GapFound(
            "tape-replaced", f"the tape is a new one: the message at offset {offset} is not the one that was folded"
        )
    return True


async def _check_end(connection: Connection, publisher: Publisher, offset: int) -> None:
    """Return when the tape reaches up to ``offset``, so that its message is only late. Raises GapFound otherwise."""
    log.info("no message at offset %d yet: looking for the end of the tape", offset)
    await publisher.publish_barrier(f"projector-{uuid4().hex[:12]}", 1)
    async with StreamReader(connection, publisher.topology.log.name, "last") as reader:
        end = -1
        while tail := await reader.read(1000, timeout=SILENCE):
            end = max(end, tail[-1].offset)
            if end >= offset:
                return
    if end < 0:
        raise BrokerUnavailable("the tape delivers nothing, not even the barrier just published; attach again")
    raise GapFound("tape-replaced", f"the tape is a new one: it ends at offset {end}, the view at {offset}")
