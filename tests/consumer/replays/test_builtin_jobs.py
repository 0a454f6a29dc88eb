"""Built-in jobs are retried when the broker is away and when another process does the same work."""

import asyncio
import logging

import pytest

from jobtape.builtin import job_types
from jobtape.builtin.common import slice_of
from jobtape.consumer.replays import replay as replay_module
from jobtape.consumer.replays import tape_source
from jobtape.consumer.replays.long_task import TakenOver
from jobtape.consumer.replays.replay import Replay, replay_to_queue
from jobtape.consumer.replays.tape_source import read_tape
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.retry import POLICY
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.topology import Topology
from jobtape.view.store import Checkpoint, Store
from tests.view.samples import record, submitted

NOBODY = "amqp://guest:guest@127.0.0.1:1/"
CTX = Context(
    job_id="j", job_type="jobtape.replay", run=1, attempt=1, log=logging.getLogger(), report=lambda progress: None
)


@pytest.fixture
def filled(store: Store) -> Store:
    """A view with one job."""
    assert store.create_checkpoint()
    assert store.take_lease("me", 60)
    record(store, submitted(1))
    return store


@pytest.mark.anyio
async def test_replay_is_retried_when_the_broker_is_away(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "CONNECT_TIMEOUT", 0.1)
    with pytest.raises(BrokerUnavailable, match="continues automatically"), slice_of(CTX, "events") as task_slice:
        wanted = Replay("r", "audit", 0, filled.committed.reach().head, Selection())
        await replay_to_queue(NOBODY, filled, wanted, task_slice)


@pytest.mark.anyio
async def test_rebuild_is_retried_when_the_broker_is_away(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_source, "CONNECT_TIMEOUT", 0.1)
    with pytest.raises(BrokerUnavailable, match="continues automatically"), slice_of(CTX, "events"):
        async for _ in read_tape(NOBODY, topology, 0, Checkpoint(1, 5, "", "me", 60.0, None)):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("error", [TimeoutError, OSError, asyncio.CancelledError], ids=lambda error: error.__name__)
async def test_errors_of_a_lost_connection_become_broker_unavailable(error: type[BaseException]) -> None:
    with pytest.raises(BrokerUnavailable, match="jobtape doctor"), slice_of(CTX, "events"):
        raise error


@pytest.mark.parametrize("name", sorted(job_types()))
def test_builtin_jobs_retry_temporary_errors(name: str) -> None:
    policy = job_types()[name].retry
    for error in (TakenOver("another process works on it"), BrokerUnavailable("away")):
        assert policy.retry_after(error) == POLICY
