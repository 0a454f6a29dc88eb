"""Tests a subscriber's queue that has no majority: the relay reports a stall, and jobs run as before."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobtape.consumer.projector import relay
from jobtape.view.store import RelayState, Store
from tests.consumer import jobs
from tests.consumer.bound_queues import bound_queue, listening, without_repeats
from tests.consumer.installation import Rig
from tests.waiting import eventually
from tools.brokers.node import PrivateNode
from tools.brokers.node_files import NodeSettings

pytestmark = pytest.mark.anyio

JOBS = 30


class JoiningNode(PrivateNode):
    """A node that joins the cluster of ``first``, which runs, at its first start, and uses its port mapper."""

    def __init__(self, folder: Path, first: PrivateNode) -> None:
        known = "cluster_formation"
        config = [f"{known}.peer_discovery_backend = classic_config", f"{known}.classic_config.nodes.1 = {first.name}"]
        super().__init__(folder, config)
        self._first = first

    def load(self) -> NodeSettings:
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.parent.mkdir()
            shutil.copy(self._first.folder / "home" / cookie.name, cookie)
        known = json.loads((self._first.folder / "node.json").read_text())
        same = {name: known[name] for name in ("user", "password", "epmd_port")}
        return replace(super().load(), **same)

    def companions(self, epmd: str, settings: NodeSettings) -> list[list[str]]:
        return []


@pytest.fixture
def second(node: PrivateNode, tmp_path: Path) -> Iterator[PrivateNode]:
    """A node that joins the cluster of the first one when it is started, and leaves it afterwards."""
    joining = JoiningNode(tmp_path / "second", node)
    yield joining
    joining.stop()
    if joining.name in node.ctl("eval", "rabbit_nodes:all()."):
        node.ctl("forget_cluster_node", joining.name)


async def test_queue_without_a_majority_stalls_only_the_relay(
    node_rig: Rig, node: PrivateNode, second: PrivateNode, view: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespace is declared before the second node joins, so Jobtape's queues are on the first node only."""
    monkeypatch.setattr(relay, "CONFIRM_TIMEOUT", 1.0)
    monkeypatch.setattr(relay, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(relay, "LONGEST_PAUSE", 1.0)
    await asyncio.to_thread(second.start)
    rig = node_rig
    connection = await rig.link.connection()
    stalling = await bound_queue(connection, rig.topology, {"x-queue-type": "quorum"}, "succeeded.#")
    async with (
        listening(rig.url, rig.topology) as received,
        rig.projector(view),
        rig.worker(jobs.add),
    ):
        await eventually(view.relay.state)
        first = await rig.submit("add", {"x": 1, "y": 2})
        await eventually(lambda: (s := view.relay.state()) is not None and s.delivered == 1)
        await asyncio.to_thread(second.kill)
        ids = [await rig.submit("add", {"x": n, "y": 2}) for n in range(JOBS)]
        await eventually(lambda: all((job := view.job(job_id)) is not None and job.final for job_id in ids))
        stalled = await eventually(lambda: state_if(view, stalled=True))
        assert "relay-stalled" in (stalled.fault or "")
        assert (stalled.delivered, stalled.stalls) == (1, 1)
        assert stalled.behind > 0
        before = len(received.messages)
        await asyncio.to_thread(second.start)
        await eventually(lambda: state_if(view, stalled=False), 60)
        await eventually(lambda: (s := view.relay.state()) is not None and s.delivered == JOBS + 1)
        await eventually(lambda: {str(message.headers["job"]) for message in received.messages} == {first, *ids})
    assert without_repeats(received.cursors) == sorted(set(received.cursors))
    # Each attempt during the stall published one event, not all that wait.
    assert before < 2 * JOBS
    state = view.relay.state()
    assert state is not None
    assert (state.fault, state.behind) == (None, 0.0)
    assert await depth(rig, stalling) >= JOBS + 1


def state_if(store: Store, *, stalled: bool) -> RelayState | None:
    state = store.relay.state()
    return state if state is not None and (state.fault is not None) == stalled else None


async def depth(rig: Rig, name: str) -> int:
    channel = await (await rig.link.connection()).channel()
    async with channel:
        under = await channel.get_underlay_channel()
        return (await under.queue_declare(name, passive=True)).message_count or 0
