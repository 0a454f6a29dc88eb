"""Handlers that fork, in each of the ways that Python has."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from jobtape import Context, JobType, job

FORK = multiprocessing.get_context("fork")
SOON = 30
"""Seconds for which a child would live if nobody ended it."""


def terminated() -> list[int]:
    """One child that works, and many that are ended while they begin."""
    codes = []
    for n in range(12):
        child = FORK.Process(target=time.sleep, args=(SOON,))
        child.start()
        if n == 0:
            time.sleep(0.1)
        child.terminate()
        child.join()
        codes.append(child.exitcode or 0)
    return codes


def ended() -> list[int]:
    """A child that does its work and ends."""
    child = FORK.Process(target=abs, args=(1,))
    child.start()
    child.join()
    return [-1 if child.exitcode is None else child.exitcode]


def pool() -> list[int]:
    """The end of the block terminates the children."""
    with FORK.Pool(2) as made:
        return made.map(abs, [-1, -2])


def executor() -> list[int]:
    """Not ended by a signal."""
    with ProcessPoolExecutor(2, mp_context=FORK) as made:
        return list(made.map(abs, [-1, -2]))


def preexec() -> list[int]:
    """A child that runs Python before it becomes another program."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], preexec_fn=os.getpid)  # noqa: PLW1509
    child.terminate()
    done = subprocess.run(["true"], preexec_fn=os.getpid, check=False)
    return [child.wait(), done.returncode]


def signalled() -> list[int]:
    """Children of ``os.fork`` that sleep, and are sent the signals that end programs."""
    codes = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if (pid := os.fork()) == 0:
            time.sleep(SOON)
            os._exit(99)
        os.kill(pid, number)
        codes.append(_code(pid))
    return codes


def back() -> list[int]:
    """A child that ends itself. Those that come back from here do not come to this line's end: see ``returns``."""
    if (pid := os.fork()) == 0:
        os._exit(7)
    return [_code(pid)]


def sockets() -> list[int]:
    """How many sockets a child has."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        links = [_link(each) for each in Path("/proc/self/fd").iterdir()]
        os.write(writing, str(sum(link.startswith("socket:") for link in links)).encode())
        os._exit(0)
    found = int(os.read(reading, 10))
    os.close(reading)
    os.close(writing)
    return [found, _code(pid)]


WAYS: dict[str, Callable[[], list[int]]] = {
    each.__name__: each for each in (terminated, ended, pool, executor, preexec, signalled, back, sockets)
}


@job("fork.def")
def in_thread(way: str) -> list[int]:
    return WAYS[way]()


@job("fork.async")
async def on_loop(way: str) -> list[int]:
    return WAYS[way]()


@job("fork.isolated", isolate=True)
def isolated(way: str) -> list[int]:
    return WAYS[way]()


@job("fork.aisolated", isolate=True)
async def aisolated(way: str) -> list[int]:
    return WAYS[way]()


def _come_back(ctx: Context, how: str, path: str) -> int:
    """The child's way back out of the handler; the parent waits for its end. What it does on our side it writes."""
    if (pid := os.fork()) != 0:
        return _code(pid)
    Path(path).write_text(str(os.getpid()))
    ctx.progress(0.5, "of the child")
    ctx.log.warning("logged by the child")
    match how:
        case "raise":
            raise ValueError("the child's own")
        case "exit":
            sys.exit(5)
    return -1


@job("fork.back")
def comes_back(ctx: Context, how: str, path: str) -> int:
    return _come_back(ctx, how, path)


@job("fork.aback")
async def acomes_back(ctx: Context, how: str, path: str) -> int:
    code = _come_back(ctx, how, path)
    if code == -1 and how.startswith("await"):
        await (asyncio.sleep(0) if how == "await step" else asyncio.sleep(0.1))
    return code


@job("fork.iback", isolate=True)
def icomes_back(ctx: Context, how: str, path: str) -> int:
    return _come_back(ctx, how, path)


@job("fork.iaback", isolate=True)
async def iacomes_back(ctx: Context, how: str, path: str) -> int:
    code = _come_back(ctx, how, path)
    if code == -1 and how.startswith("await"):
        await (asyncio.sleep(0) if how == "await step" else asyncio.sleep(0.1))
    return code


@job("fork.stays")
def stays(path: str) -> None:
    """Leaves a child that outlives the worker, and does not end."""
    if (pid := os.fork()) == 0:
        signal.pause()
        os._exit(0)
    Path(path).write_text(str(pid))
    time.sleep(600)


@job("fork.neighbour")
async def neighbour(path: str) -> None:
    """Writes a line for each execution, and one for each step of it in whatever process."""
    for _ in range(200):
        with Path(path).open("a") as file:  # noqa: ASYNC230
            file.write(f"{os.getpid()}\n")
        await asyncio.sleep(0)


def _code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _link(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


JOB_TYPES: list[JobType[Any]] = [each for each in list(vars().values()) if isinstance(each, JobType)]
