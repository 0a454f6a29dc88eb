"""Reads the tape itself as the source of a rebuild, for a history that cannot be trusted."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from jobtape.broker.link import Link
from jobtape.broker.stream_reader import StreamReader, TapeMessage
from jobtape.schemas.cursor import cursor_of, offset_of
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.topology import BARRIER_KEY, Topology
from jobtape.view.sql.paging import PAGE_BYTES, STEP
from jobtape.view.store import Checkpoint, RawMessage

PAGE: Final = 4000
"""Messages that are folded in one transaction. With 1,000 a rebuild was slower by about a tenth."""
CONNECT_TIMEOUT = 15.0
"""Seconds until there must be a connection."""
SILENCE = 10.0
"""Seconds without a message before the known end of the tape, after which reading fails."""
GATHER = 0.05
"""Seconds to wait for further messages of a page. Messages arrive one by one, and each page is one transaction."""


class TapeOvertaken(JobtapeError):
    """Retention has dropped the message that was to be read next."""


async def read_tape(
    url: str, topology: Topology, after: int, checkpoint: Checkpoint
) -> AsyncGenerator[Sequence[RawMessage], None]:
    """Yield pages of the tape after the cursor ``after`` and up to ``checkpoint``, without barriers.

    Starts with the first message that retention has left. Raises TapeOvertaken when ``after`` is a message of this tape
    that retention has dropped, TapeMissing, BrokerUnavailable when the tape ends before the checkpoint, and
    BROKER_ERRORS.
    """
    if checkpoint.offset is None or after >= checkpoint.cursor:
        return
    # Start with the last message that was read: while it exists, retention has dropped nothing after it.
    last = offset_of(after) if after >= cursor_of(checkpoint.epoch, 0) else None
    link = Link(url, name=f"{topology.namespace} rebuild")
    link.start()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await link.connection()
        async with StreamReader(connection, topology.log.name, last or "first") as reader:
            while True:
                messages = await _page(reader, checkpoint.offset)
                if not messages:
                    raise BrokerUnavailable(
                        f"the tape {topology.log.name} shows nothing before offset {checkpoint.offset}, up to which "
                        "the view was folded: see `jobtape doctor`, then start again"
                    )
                if last is not None and messages[0].offset > last:
                    raise TapeOvertaken(
                        f"the tape {topology.log.name} begins at offset {messages[0].offset} now, after {last}, up to "
                        "which it was read: start the rebuild again"
                    )
                known = [each for each in messages if (-1 if last is None else last) < each.offset <= checkpoint.offset]
                entries = [
                    RawMessage(cursor_of(checkpoint.epoch, each.offset), each.body)
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
    """Read messages up to the offset ``end`` until there are PAGE of them or more than PAGE_BYTES.

    Returns no message when none arrives for SILENCE seconds.
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
