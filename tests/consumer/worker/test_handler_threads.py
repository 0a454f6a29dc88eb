"""The threads of ``def`` handlers: used again if a handler left nothing in them, and enough for all that run."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobtape.consumer.worker.handlers.threads import HandlerThreads

pytestmark = pytest.mark.anyio

local = threading.local()


@pytest.fixture
async def threads() -> Any:
    made = HandlerThreads()
    yield made
    made.close()


async def name_of(threads: HandlerThreads, work: Callable[[], object]) -> str:
    """Run ``work`` and return the name that its thread had before."""
    loop = asyncio.get_running_loop()
    name: asyncio.Future[str] = loop.create_future()

    def run() -> None:
        before = threading.current_thread().name
        work()
        loop.call_soon_threadsafe(name.set_result, before)

    threads.start(run)
    async with asyncio.timeout(10):
        return await name


async def test_thread_is_used_again_if_handler_left_nothing(threads: HandlerThreads) -> None:
    names = {await name_of(threads, lambda: repr([{}])) for _ in range(20)}
    assert len(names) < 10


def leave_local() -> None:
    local.value = 1


def leave_loop() -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())


def leave_trace() -> None:
    sys.settrace(lambda *_: None)


def leave_profile() -> None:
    sys.setprofile(lambda *_: None)


def leave_name() -> None:
    threading.current_thread().name = "mine"


def leave_attribute() -> None:
    threading.current_thread().mine = 1  # type: ignore[attr-defined]  # what a handler may do


@pytest.mark.parametrize(
    "leave",
    [leave_local, leave_loop, leave_trace, leave_profile, leave_name, leave_attribute],
    ids=lambda each: each.__name__,
)
async def test_thread_is_not_used_again_if_handler_left_something(
    threads: HandlerThreads, leave: Callable[[], None]
) -> None:
    names = [await name_of(threads, leave) for _ in range(6)]
    assert len(set(names)) == 6
    assert "mine" not in names


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


async def test_long_handler_holds_up_none_that_started_with_it(threads: HandlerThreads, gate: threading.Event) -> None:
    held = [asyncio.create_task(name_of(threads, gate.wait)) for _ in range(4)]
    await asyncio.sleep(0)
    assert await name_of(threads, lambda: None)
    assert not any(task.done() for task in held)
    gate.set()
    assert len(set(await asyncio.gather(*held))) == 4
