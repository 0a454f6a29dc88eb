"""Tests clients that a forked child process inherits from its parent."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from uuid import uuid4

import pytest

from jobtape import Client, JobtapeError, SyncClient
from jobtape.client import ClientForked, NotFound
from tests.client.conftest import RunningApi
from tests.client.jobs import add
from tests.producer.running_api import running_producer

pytestmark = pytest.mark.anyio


def in_child(call: Callable[[], object]) -> int:
    """Call ``call`` in a forked child, and return its exit code: 0 without an error. Kills the child after 20 s."""
    if (pid := os.fork()) == 0:
        try:
            call()
        except BaseException:  # noqa: BLE001
            os._exit(1)
        os._exit(0)
    guard = threading.Timer(20, os.kill, (pid, signal.SIGKILL))
    guard.start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    guard.cancel()
    return code


async def test_sync_client_works_in_child_and_parent(running_api: RunningApi) -> None:
    def use() -> None:
        with SyncClient(running_api.url) as client:
            job_id = client.submit(add, x=1).id
            assert in_child(lambda: client.get(job_id)) == 0
            assert in_child(client.close) == 0
            jobs = client.list()
            next(jobs)

            def read_on() -> None:
                with pytest.raises(ClientForked, match="start another"):
                    next(jobs)

            assert in_child(read_on) == 0
            assert client.get(job_id).id == job_id

    await asyncio.to_thread(use)


async def test_async_client_works_in_child(running_api: RunningApi) -> None:
    async with Client(running_api.url) as client:

        async def get() -> None:
            with pytest.raises(NotFound):
                await client.get(str(uuid4()))

        await get()
        assert await asyncio.to_thread(in_child, lambda: asyncio.run(get())) == 0
        await get()


async def test_submit_in_child_of_application_is_refused(running_api: RunningApi) -> None:
    def submit() -> None:
        with pytest.raises(JobtapeError, match="forked from"):
            asyncio.run(add.submit(x=1))

    assert running_producer()
    assert await asyncio.to_thread(in_child, submit) == 0
