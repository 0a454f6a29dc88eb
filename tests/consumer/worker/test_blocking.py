"""User code that blocks delays other jobs, but never costs the connection."""

import threading
from typing import Annotated

import pytest
from pydantic import AfterValidator

from jobtape.broker import link
from jobtape.jobs import JobType
from tests.broker.proxy import Proxy
from tests.consumer import jobs
from tests.consumer.installation import Rig

pytestmark = pytest.mark.anyio


async def test_blocking_handler_keeps_heartbeat(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker closes a connection after two heartbeats without a frame."""
    monkeypatch.setattr(link, "HEARTBEAT", 1)
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.blocks, jobs.aadd, jobs.add):
            rig.url = direct
            seen = proxy.seen
            blocked = await rig.submit("blocks", {"seconds": 3.5})
            thread = await rig.submit("add", {"x": 1, "y": 2})
            assert (await rig.outcome(thread)).name == "succeeded", "threads go on"
            assert (await rig.outcome(blocked)).data.result == "done"
            assert rig.names(blocked) == ["submitted", "started", "succeeded"]
            assert (proxy.seen, proxy.connections) == (seen, 2), "both connections are still open"


async def test_payload_validator_runs_where_handler_runs(rig: Rig) -> None:
    """A validator is user code, which may block."""
    ran_in: list[str] = []

    def check(name: str) -> str:
        ran_in.append(threading.current_thread().name)
        return name

    async def on_loop(name: Annotated[str, AfterValidator(check)]) -> None: ...

    def in_thread(name: Annotated[str, AfterValidator(check)]) -> None: ...

    async with rig.worker(JobType(on_loop, "on.loop"), JobType(in_thread, "in.thread")):
        for job_type in ("on.loop", "in.thread"):
            await rig.outcome(await rig.submit(job_type, {"name": "x"}))
    assert ran_in[0] == "handlers"
    assert ran_in[1].startswith("job_")
