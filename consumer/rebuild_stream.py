"""The tape itself as a source of a rebuild, for a history that cannot be trusted."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from jobtape.broker.link import Link
from jobtape.broker.stream import Recorded, StreamReader
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.schemas.position import cursor_of, offset_of
from jobtape.schemas.topology import BARRIER_KEY, Topology
from jobtape.view.rebuilds import PAGE
from jobtape.view.store import Archived, Checkpoint

CONNECT_LIMIT = 15.0
SILENCE = 10.0
"""Seconds without a message before the tape's known end, after which the reading is given up."""
GATHER = 0.05
"""Seconds in which more messages are awaited for a page: each page is a transaction, and deliveries come one by one."""


async def read_tape(
    url: str, topology: Topology, after: int, checkpoint: Checkpoint
) -> AsyncIterator[Sequence[Archived]]:
    """What is on the tape behind the cursor ``after``, without barriers, up to the checkpoint, in whose epoch it is.

    Where retention has dropped the beginning, from the first message that is left. Raises LogMissing,
    BrokerUnavailable when it ends before the checkpoint, and others of ``BROKER_ERRORS``, TimeoutError among them.
    """
    if checkpoint.offset is None or after >= checkpoint.cursor:
        return
    start = max(0, offset_of(after) + 1) if after >= cursor_of(checkpoint.epoch, 0) else 0
    link = Link(url, name=f"{topology.namespace} rebuild")
    link.start()
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            connection = await link.connection()
        async with StreamReader(connection, topology.log.name, start or "first", prefetch=PAGE) as reader:
            while True:
                messages = await _page(reader, checkpoint.offset)
                if not messages:
                    raise BrokerUnavailable(
                        f"the tape {topology.log.name} shows nothing before offset {checkpoint.offset}, up to which "
                        "the view was folded: see `jobtape doctor`, then begin again"
                    )
                known = [each for each in messages if each.offset <= checkpoint.offset]
                entries = [
                    Archived(cursor_of(checkpoint.epoch, each.offset), each.body)
                    for each in known
                    if each.key != BARRIER_KEY
                ]
                if entries:
                    yield entries
                if messages[-1].offset >= checkpoint.offset:
                    return
    finally:
        await link.close()


async def _page(reader: StreamReader, end: int) -> list[Recorded]:
    """The next messages, PAGE at most, up to that of the offset ``end``; none when there is silence."""
    messages = await reader.read(PAGE, timeout=SILENCE)
    while messages and len(messages) < PAGE and messages[-1].offset < end:
        more = await reader.read(PAGE - len(messages), timeout=GATHER)
        if not more:
            break
        messages += more
    return messages
