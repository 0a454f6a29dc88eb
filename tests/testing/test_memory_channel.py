"""What the broker in memory does with frames that it does not know."""

import aiormq
import pytest
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic
from pamqp.frame import marshal

from jobtape.schemas.topology import Topology
from jobtape.testing.broker.broker import MemoryBroker
from jobtape.testing.broker.connection import MemoryConnection


@pytest.mark.anyio
async def test_unknown_frame_closes_channel_with_reason(caplog: pytest.LogCaptureFixture) -> None:
    connection = MemoryConnection(MemoryBroker(Topology("memory")))
    channel = await connection.channel(1)
    frame = marshal(Basic.Recover(), 1)
    channel.write_queue.put_nowait(ChannelFrame(payload=frame * 2, should_close=False, drain_future=None))
    assert channel.is_closed
    assert not connection.channels
    with pytest.raises(aiormq.exceptions.ChannelClosed, match=r"does not know .*Basic\.Recover.*: please report this"):
        await channel.closing
    assert [record.message.partition(":")[0] for record in caplog.records] == ["channel 1 is closed"]
