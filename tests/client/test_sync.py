"""Tests ``SyncClient``."""

import asyncio
import subprocess
import sys
from uuid import uuid4

import pytest

from jobtape import Client, JobState, SyncClient
from jobtape.client import ClientClosed, Invalid, NotInTime
from tests.broker.proxy import Proxy
from tests.client.jobs import Period, add, period
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("worker")
async def test_sync_client_submits_reads_and_lists(network: Proxy) -> None:
    def use() -> None:
        with SyncClient(network.url) as client:
            handle = client.submit(period, first="2030-02-27", days=1)
            result = handle.result(timeout=20)
            assert isinstance(result, Period)
            assert client.get(handle).state is JobState.SUCCEEDED
            assert next(client.list(types=period)).id == handle.id
            with pytest.raises(Invalid):
                client.submit("nope")

    await asyncio.to_thread(use)


async def test_sync_handle_times_out_and_cancels(network: Proxy) -> None:
    def use() -> None:
        with SyncClient(network.url) as client:
            handle = client.submit(add, x=1)
            with pytest.raises(NotInTime):
                handle.result(timeout=0.1)
            handle.cancel()
            assert client.wait(handle, timeout=20).state is JobState.CANCELLED

    await asyncio.to_thread(use)


async def test_closed_client_raises(network: Proxy) -> None:
    def use() -> None:
        client = SyncClient(network.url)
        jobs = client.list()
        client.close()
        client.close()
        with pytest.raises(ClientClosed, match="create another one"):
            client.get(str(uuid4()))
        with pytest.raises(ClientClosed):
            next(jobs)

    await asyncio.to_thread(use)
    asynchronous = Client(network.url)
    await asynchronous.close()
    with pytest.raises(ClientClosed, match="create another one"):
        await asynchronous.get(str(uuid4()))
    with pytest.raises(ClientClosed):
        await anext(asynchronous.events())


async def test_close_ends_waiting_calls(network: Proxy) -> None:
    client = SyncClient(network.url)
    network.hold_answers = True
    waiting = asyncio.create_task(asyncio.to_thread(client.get, str(uuid4())))
    await eventually(lambda: network.held, what="the client has sent its request")
    await asyncio.to_thread(client.close)
    with pytest.raises(ClientClosed):
        await waiting


def test_program_ends_without_close() -> None:
    program = "from jobtape import SyncClient; SyncClient('http://127.0.0.1:1')"
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
