"""Handlers that fork, in all the ways that Python has."""

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
    """Terminate one child that works, and many that are starting."""
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
    """Wait for a child that ends by itself."""
    child = FORK.Process(target=abs, args=(1,))
    child.start()
    child.join()
    return [-1 if child.exitcode is None else child.exitcode]


def pool() -> list[int]:
    """Use a pool whose children are terminated at the end of the block."""
    with FORK.Pool(2) as made:
        return made.map(abs, [-1, -2])


def executor() -> list[int]:
    """Use an executor whose children end without a signal."""
    with ProcessPoolExecutor(2, mp_context=FORK) as made:
        return list(made.map(abs, [-1, -2]))


def preexec() -> list[int]:
    """Start children that run Python before they become another program."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], preexec_fn=os.getpid)  # noqa: PLW1509
    child.terminate()
    done = subprocess.run(["true"], preexec_fn=os.getpid, check=False)
    return [child.wait(), done.returncode]


def signalled() -> list[int]:
    """Send the signals that end programs to children that sleep."""
    codes = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if (pid := os.fork()) == 0:
            time.sleep(SOON)
            os._exit(99)
        os.kill(pid, number)
        codes.append(_code(pid))
    return codes


def back() -> list[int]:
    """Wait for a child that ends itself with ``os._exit``."""
    if (pid := os.fork()) == 0:
        os._exit(7)
    return [_code(pid)]


def sockets() -> list[int]:
    """Count the sockets of a child."""
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


def _return_in_child(ctx: Context, how: str, path: str) -> int:
    """Fork a child that writes its process id to ``path`` and returns from the handler; wait for its end."""
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
def returns(ctx: Context, how: str, path: str) -> int:
    return _return_in_child(ctx, how, path)


@job("fork.aback")
async def areturns(ctx: Context, how: str, path: str) -> int:
    code = _return_in_child(ctx, how, path)
    if code == -1 and how.startswith("await"):
        await (asyncio.sleep(0) if how == "await step" else asyncio.sleep(0.1))
    return code


@job("fork.iback", isolate=True)
def ireturns(ctx: Context, how: str, path: str) -> int:
    return _return_in_child(ctx, how, path)


@job("fork.iaback", isolate=True)
async def iareturns(ctx: Context, how: str, path: str) -> int:
    code = _return_in_child(ctx, how, path)
    if code == -1 and how.startswith("await"):
        await (asyncio.sleep(0) if how == "await step" else asyncio.sleep(0.1))
    return code


@job("fork.stays")
def stays(path: str) -> None:
    """Start a child that outlives the worker, and do not end."""
    if (pid := os.fork()) == 0:
        signal.pause()
        os._exit(0)
    Path(path).write_text(str(pid))
    time.sleep(600)


@job("fork.neighbour")
async def neighbour(path: str) -> None:
    """Write the process id at each step."""
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
