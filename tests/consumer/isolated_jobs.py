"""Isolated handlers, healthy and faulty."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from jobtape import Context, RetryPolicy, job
from jobtape.telemetry import tracing

MEBIBYTE = 2**20


@job("iso.add", isolate=True)
def add(x: int, y: int) -> int:
    return x + y


@job("iso.aadd", isolate=True)
async def aadd(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@job("iso.pid", isolate=True)
def pid(nap: float = 0.0) -> int:
    time.sleep(nap)
    return os.getpid()


@job("iso.meet", isolate=True)
def meet(folder: Path, processes: int) -> int:
    """Wait until jobs are in so many processes."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < processes:
        time.sleep(0.01)
    return os.getpid()


@job("iso.traceparent", isolate=True)
def traceparent(ctx: Context) -> list[str | None]:
    return [ctx.traceparent, tracing.traceparent()]


@job("iso.logs", isolate=True)
def logs(secret: str) -> None:
    logging.getLogger("users.own").warning("in process")


@job("iso.boom", isolate=True)
async def boom() -> None:
    raise ValueError("bang")


@job("iso.exit", isolate=True, retry=RetryPolicy(max_attempts=3, first=0.05))
def exits(path: str = "") -> str:
    """End the process; with a path, only if that file does not exist yet."""
    if path and Path(path).exists():
        return "at last"
    if path:
        Path(path).touch()
    os._exit(7)


@job("iso.segfault", isolate=True)
def segfault() -> None:
    ctypes.string_at(0)


@job("iso.killed", isolate=True)
async def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@job("iso.spin", isolate=True, timeout=0.5)
def spin() -> None:
    while True:
        pass


@job("iso.aspin", isolate=True, timeout=0.5)
async def aspin() -> None:
    while True:
        pass


@job("iso.sleep", isolate=True, timeout=0.5)
def sleep(seconds: float = 60) -> None:
    time.sleep(seconds)


@job("iso.heedless", isolate=True, timeout=0.5)
async def heedless() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@job("iso.big", isolate=True, memory=256 * MEBIBYTE)
def big(mebibytes: int) -> int:
    return len(bytearray(mebibytes * MEBIBYTE))


@job("iso.abig", isolate=True, memory=256 * MEBIBYTE)
async def abig(mebibytes: int) -> int:
    return len(bytearray(mebibytes * MEBIBYTE))


@job("iso.steps", isolate=True)
def steps(ctx: Context, words: str) -> str:
    print(f"printed {words}")
    ctx.log.warning("logged %s", words)
    ctx.progress(0.25, words)
    time.sleep(0.6)
    ctx.progress(0.75, words)
    time.sleep(0.6)
    return f"{ctx.idempotency_key} {ctx.attempt}"


@job("iso.family", isolate=True, timeout=1.5)
def family(path: str) -> None:
    """Start a child, and a daemon in its own session, which write their process ids; then wait."""
    code = f"import os, time; open({path!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            exec(code)
        os._exit(0)
    time.sleep(600)


@job("iso.strict", isolate=True)
def strict(n: int) -> int:
    return n


@job("iso.large", isolate=True)
def large(n: int) -> str:
    return "x" * n
