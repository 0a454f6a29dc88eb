"""The tape itself as a source of a rebuild, for a history that cannot be trusted."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from jobtape.broker.link import Link
from jobtape.broker.stream_reader import StreamReader, TapeMessage
from jobtape.schemas.cursor import cursor_of, offset_of
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.topology import BARRIER_KEY, Topology
from jobtape.view.rebuilds import PAGE
from jobtape.view.sql.paging import PAGE_BYTES, STEP
from jobtape.view.store import Archived, Checkpoint

CONNECT_LIMIT = 15.0
SILENCE = 10.0
"""Seconds without a message before the tape's known end, after which the reading is given up."""
GATHER = 0.05
"""Seconds in which more messages are awaited for a page: each page is a transaction, and deliveries come one by one."""


class TapeOvertaken(JobtapeError):
    """Retention has dropped what was to be read next."""


async def read_tape(
    url: str, topology: Topology, after: int, checkpoint: Checkpoint
) -> AsyncGenerator[Sequence[Archived], None]:
    """What is on the tape behind the cursor ``after``, without barriers, up to the checkpoint, in whose epoch it is.

    Where retention has dropped the beginning, from the first message that is left; but raises Overtaken where ``after``
    is a message of the tape that it has dropped since. Raises TapeMissing, BrokerUnavailable when it ends before the
    checkpoint, and others of ``BROKER_ERRORS``, TimeoutError among them.
    """
    if checkpoint.offset is None or after >= checkpoint.cursor:
        return
    # The last one that was read comes first: as long as it is there, nothing behind it can have been dropped.
    last = offset_of(after) if after >= cursor_of(checkpoint.epoch, 0) else None
    link = Link(url, name=f"{topology.namespace} rebuild")
    link.start()
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            connection = await link.connection()
        async with StreamReader(connection, topology.log.name, last or "first") as reader:
            while True:
                messages = await _page(reader, checkpoint.offset)
                if not messages:
                    raise BrokerUnavailable(
                        f"the tape {topology.log.name} shows nothing before offset {checkpoint.offset}, up to which "
                        "the view was folded: see `jobtape doctor`, then begin again"
                    )
                if last is not None and messages[0].offset > last:
                    raise TapeOvertaken(
                        f"the tape {topology.log.name} begins at offset {messages[0].offset} by now, behind {last}, "
                        "up to which it was read: begin the rebuild again"
                    )
                known = [each for each in messages if (-1 if last is None else last) < each.offset <= checkpoint.offset]
                entries = [
                    Archived(cursor_of(checkpoint.epoch, each.offset), each.body)
                    for each in known
                    if each.key != BARRIER_KEY
                ]
                if entries:
                    yield entries
                if messages[-1].offset >= checkpoint.offset:
                    return
                last = None
    finally:
        await link.close()


async def _page(reader: StreamReader, end: int) -> list[TapeMessage]:
    """The next messages, up to that of the offset ``end``: PAGE at most, and none behind the one that makes them more
    than PAGE_BYTES but for those of one reading; none when there is silence.
    """
    messages = await reader.read(STEP, timeout=SILENCE)
    size = sum(len(each.body) for each in messages)
    while messages and len(messages) < PAGE and size < PAGE_BYTES and messages[-1].offset < end:
        more = await reader.read(min(STEP, PAGE - len(messages)), timeout=GATHER)
        if not more:
            break
        messages += more
        size += sum(len(each.body) for each in more)
    return messages
