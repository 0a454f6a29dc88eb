"""Signals and follow-ups by both clients, over HTTP and on the command line."""

import asyncio
import json
from typing import Any

import pytest

from jobtape import Client, Flow, Job, SyncClient
from jobtape.cli.main import app
from jobtape.client import Conflict, Invalid, NotFound, RequestRefused
from tests.broker.proxy import Proxy
from tests.client.jobs import add, ask, boom
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

NO_JOB = "01890a5d-ac96-774b-bcce-b302099a8057"


async def shown(client: Client, job: Job) -> dict[str, Any]:
    return (await client.request("GET", f"/jobs/{job.id}")).content


@pytest.mark.usefixtures("worker")
async def test_signal_goes_to_the_job_that_waits_for_it(
    client: Client, network: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = await client.submit(ask, x=1)

    async def waits() -> dict[str, Any] | None:
        found = await shown(client, handle.job)
        nodes = {node.name: node.state for node in await client.nodes(handle.id)} if found["follow_up_jobs"] else {}
        return found if nodes.get("sum") == "succeeded" else None

    found = await eventually(waits)
    assert (found["state"], found["reason"], found["follow_up_jobs"]) == ("held", "follow_ups", 2)
    assert found["waits_for"] == ["signal approved", "its 2 follow-ups"]
    nodes = await client.nodes(handle.id)
    assert [(node.name, node.type, node.state) for node in nodes] == [
        ("approved", "signal", "waiting"),
        ("sum", "add", "succeeded"),
        ("then", "answer", "waiting"),
    ]
    signalled = await client.signal(handle, "approved", {"by": "Ada"}, idempotency_key="k")
    assert signalled.signals == {"approved": {"payload": {"by": "Ada"}, "timed_out": False}}
    again = await client.signal(handle, "approved", {"by": "Ada"}, idempotency_key="k")
    assert again.id == handle.id
    with pytest.raises(Conflict, match="another signal with this name came first"):
        await client.signal(handle, "approved", {"by": "Ada"})
    with pytest.raises(RequestRefused, match="belongs to another submission"):
        await client.signal(handle, "approved", {"by": "Bob"}, idempotency_key="k")
    assert (await handle.result()) == "2 by Ada"
    # After the end too: the first one is repeated, others come too late.
    await client.signal(handle, "approved", {"by": "Ada"}, idempotency_key="k")
    with pytest.raises(Conflict, match="takes no signals"):
        await client.signal(handle, "late")
    children = (await client.request("GET", f"/jobs?flow={handle.id}")).content["items"]
    assert {job["node"] for job in children} == {"sum", "then"}

    def by_hand() -> str:
        with SyncClient(network.url) as sync:
            waiting = sync.submit(ask, x=2)
            assert sync.signal(waiting, "other").signals is not None
            given = ["signal", waiting.id, "approved", '{"by": "Eve"}', "--url", network.url]
            assert not app(given, standalone_mode=False) and capsys.readouterr().out == "sent\n"
            return str(waiting.result())

    assert await asyncio.to_thread(by_hand) == "3 by Eve"


@pytest.mark.usefixtures("worker")
async def test_flow_waits_for_signals(client: Client) -> None:
    flow = Flow()
    flow.add(add, x=flow.wait("first").result["x"], y=1, node="one")
    flow.add(boom, text="nobody came", after=[flow.wait("never", timeout=0.1)])
    handle = await client.submit_flow(flow)
    await client.signal(handle, "first", {"x": 5})
    ended = await handle.wait()
    assert (ended.state, ended.reason) == ("failed", "node_failed")
    (job,) = (await client.request("GET", f"/jobs?flow={handle.id}&node=one")).content["items"]
    assert job["result"] == 6
    assert ended.signals is not None and ended.signals["never"] == {"payload": None, "timed_out": True}


async def test_wrong_signals_are_refused(client: Client) -> None:
    handle = await client.submit(add, 1, 2)
    with pytest.raises(NotFound):
        await client.signal(NO_JOB, "approved")
    with pytest.raises(Invalid, match="pattern"):
        await client.signal(handle, "a b")
    bodies: list[Any] = [[], {"payload": 3}, {"other": 1}]
    for body in bodies:
        with pytest.raises(Invalid, match="not a signal"):
            await client.request(
                "POST",
                f"/jobs/{handle.id}/signals/x",
                content=json.dumps(body),
                headers={"Content-Type": "application/json"},
            )
    await handle.cancel()
