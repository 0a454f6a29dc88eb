"""The memory of many streams is returned to the system after they have ended."""

import asyncio
import gc
import platform
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobtape.producer.live.memory_trim import MemoryTrimmer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PIECE = 1024
"""Bytes; above the sizes that Python's own allocator handles."""


class Cycle:
    """A reference cycle: only the garbage collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Switch the garbage collector off."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_cycles_are_collected_after_many_ended_streams() -> None:
    trimmer = MemoryTrimmer(many=10, pause=0)
    cycle = weakref.ref(Cycle())
    for _ in range(9):
        trimmer.stream_ended()
    assert not trimmer.due
    trimmer.stream_ended()
    await eventually(lambda: cycle() is None)


@pytest.mark.usefixtures("uncollected")
async def test_closed_trimmer_collects_nothing() -> None:
    trimmer = MemoryTrimmer(many=1, pause=0)
    cycle = weakref.ref(Cycle())
    trimmer.stream_ended()
    trimmer.close()
    trimmer.stream_ended()
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0, later.set)  # behind what was due
    await later.wait()
    assert cycle() is not None


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="malloc_trim is glibc's; elsewhere nothing is promised (docs/how-to/deploy.md)",
)
async def test_freed_memory_returns_to_system() -> None:
    pieces = [bytes(PIECE) for _ in range(64 * MIB // PIECE)]
    pin = bytes(PIECE)  # above them, so that the heap cannot simply end lower
    full = _resident()
    del pieces
    trimmer = MemoryTrimmer(many=1, pause=0)
    trimmer.stream_ended()
    await eventually(lambda: _resident() < full - 48 * MIB)
    assert len(pin) == PIECE


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024
