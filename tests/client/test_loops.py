"""Tests one client that is used from several event loops and threads."""

import asyncio
import gc
import warnings

import pytest

from jobtape import Client, SyncClient
from jobtape.client import ClientClosed, Handle
from tests.broker.proxy import Proxy
from tests.client.jobs import add
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

TIMES = 10


@pytest.mark.usefixtures("worker")
async def test_client_works_on_one_loop_after_another(network: Proxy) -> None:
    client = Client(network.url)

    async def submit(n: int) -> Handle[int]:
        return await client.submit(add, x=n)

    def use() -> None:
        for n in range(TIMES):
            handle = asyncio.run(submit(n))
            assert asyncio.run(handle.result(timeout=20)) == n  # on another loop than its submission
            assert asyncio.run(client.get(handle)).id == handle.id

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a loop that has ended closes no connections
        await asyncio.to_thread(use)
        gc.collect()
    assert len(client._connection._pools._by_loop) == 1, "the connections of ended loops are removed"
    await client.close()
    with pytest.raises(ClientClosed):
        await asyncio.to_thread(lambda: asyncio.run(client.get("x")))


@pytest.mark.usefixtures("worker")
async def test_client_works_on_several_loops_at_once(network: Proxy) -> None:
    async with Client(network.url) as client:

        async def several(first: int) -> list[int]:
            handles = [await client.submit(add, x=first + n) for n in range(TIMES)]
            return list(await asyncio.gather(*(handle.result(timeout=20) for handle in handles)))

        here = await client.submit(add, x=-1)
        others = [asyncio.to_thread(asyncio.run, several(first)) for first in (0, 100, 200)]
        found = await asyncio.gather(*others, several(300))
        assert found == [[first + n for n in range(TIMES)] for first in (0, 100, 200, 300)]
        assert await here.result(timeout=20) == -1


async def test_close_ends_connections_of_other_running_loop(network: Proxy) -> None:
    client = Client(network.url)
    used, closed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def use() -> None:
        await client.submit(add, x=1)
        loop.call_soon_threadsafe(used.set)
        await eventually(lambda: client._connection._pools.closed)
        with pytest.raises(ClientClosed):
            await client.submit(add, x=1)
        loop.call_soon_threadsafe(closed.set)

    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(use())))
    await used.wait()
    await client.close()
    await closed.wait()
    await other


@pytest.mark.usefixtures("worker")
async def test_sync_client_works_on_any_thread_or_loop(network: Proxy) -> None:
    def use(client: SyncClient) -> list[int]:
        handles = [client.submit(add, x=n) for n in range(TIMES)]
        return [handle.result(timeout=20) for handle in handles]

    async def on_a_loop(client: SyncClient) -> list[int]:
        return use(client)

    with await asyncio.to_thread(SyncClient, network.url) as client:
        found = await asyncio.gather(
            asyncio.to_thread(use, client), asyncio.to_thread(lambda: asyncio.run(on_a_loop(client)))
        )
        assert list(found) == [list(range(TIMES))] * 2
