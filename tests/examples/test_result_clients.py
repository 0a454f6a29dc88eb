"""Tests the result clients, which know only RabbitMQ's address: Node, pika and the shell get all outcomes.

The aio-pika client gets the outcomes of its own jobs.
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from jobtape.schemas.events import RELAYED_EVENTS
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, Store
from tests.consumer import jobs
from tests.consumer.bound_queues import delete_queue
from tests.consumer.installation import Rig
from tests.result_clients import ensure_amqp_consume, node_folder, run_client, wait_bound, wait_listening
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

JOBS = 60


@pytest.fixture
async def rig(broker_url: str, topology: object) -> AsyncIterator[Rig]:
    """Connect to the session's broker."""
    async with Rig(broker_url, topology) as opened:  # type: ignore[arg-type]
        yield opened


@pytest.fixture
def store(sqlite_url: str) -> Store:
    """An SQLite view."""
    opened = Store(sqlite_url)
    opened.migrate()
    return opened


def outcomes(store: Store) -> list[CommittedEvent]:
    return list(store.committed.page(0, 10_000, Selection(events=RELAYED_EVENTS["final"])).rows)


async def test_each_client_receives_every_outcome_or_its_own_replies(rig: Rig, store: Store, tmp_path: Path) -> None:
    node = node_folder(tmp_path)
    ensure_amqp_consume()
    url, namespace = rig.url, rig.topology.namespace
    durable = f"{namespace}-billing"
    async with AsyncExitStack() as stack:
        shell = await stack.enter_async_context(run_client(url, namespace, ["./results.sh"]))
        await wait_bound(shell, url, rig.topology.results.name, "succeeded.probe")
        pika = await stack.enter_async_context(
            run_client(url, namespace, [sys.executable, "results_pika.py", durable, "*.add", "failed.#"])
        )
        node_client = await stack.enter_async_context(
            run_client(url, namespace, [node, "results.mjs", "succeeded.#", "failed.#"], tmp_path)
        )
        replies = await stack.enter_async_context(
            run_client(url, namespace, [sys.executable, "replies_aio_pika.py", "caller-7"])
        )
        for each in (pika, node_client, replies):
            await wait_listening(each)
        async with rig.projector(store), rig.worker(jobs.add, jobs.boom):
            mine = set()
            for n in range(JOBS):
                reply_to = ("caller-7", "caller-8", None)[n % 3]
                if n % 10:
                    job_id = await rig.submit("add", {"x": n, "y": 0}, reply_to=reply_to)
                else:
                    job_id = await rig.submit("boom", reply_to=reply_to, max_attempts=1)
                mine |= {job_id} if reply_to == "caller-7" else set()
            await eventually(lambda: len(outcomes(store)) == JOBS)
            expected = {row.event_id for row in outcomes(store)}
            for each in (pika, node_client):
                await eventually(lambda: set(each.words) == expected, what="all outcomes")  # noqa: B023
                assert len(each.words) == JOBS, "repeats are dropped"
            await eventually(lambda: event_ids(shell.lines) == expected)
            own = {row.event_id for row in outcomes(store) if row.job_id in mine}
            await eventually(lambda: set(replies.words) == own)
            assert len(replies.words) == len(own) == JOBS // 3
    assert 'failed boom {"type": "ValueError"' in "\n".join(pika.lines)
    assert f"succeeded add {JOBS - 1}" in "\n".join(node_client.lines)
    await delete_queue(await rig.link.connection(), durable)
    store.close()


def event_ids(lines: list[str]) -> set[str]:
    """Return the ids of the events. The empty objects between them are the messages of ``wait_bound``."""
    return {event["id"] for line in lines if (event := json.loads(line))}
