"""Handlers that submit jobs."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from jobtape import Context, JobtapeError, Options, job


@job("child")
def child(n: int) -> int:
    return n


@job("parent-async")
async def parent_async(n: int) -> str:
    return (await child.submit(n=n)).id


@job("parent-async-options")
async def parent_async_options(n: int) -> str:
    async with asyncio.timeout(20):
        first, *_ = await asyncio.gather(child.submit_with(Options(labels={"n": str(n)}), n=n), asyncio.sleep(0))
    return first.id


@job("parent-async-thread")
async def parent_async_thread(n: int) -> str:
    return (await asyncio.to_thread(child.submit_sync, n=n)).id


@job("parent-async-blocking")
async def parent_async_blocking(n: int) -> str:
    """It blocks other handlers, but it works, because the connection is on another loop."""
    return child.submit_sync(n=n).id


@job("parent-def")
def parent_def(n: int) -> str:
    return child.submit_sync(n=n).id


@job("parent-def-run")
def parent_def_run(n: int) -> str:
    return asyncio.run(child.submit(n=n)).id


@job("parent-def-thread")
def parent_def_thread(n: int) -> str:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(child.submit_sync, n=n).result().id


@job("parent-isolated-def", isolate=True)
def parent_isolated_def(n: int) -> str:
    return child.submit_sync(n=n).id


@job("parent-isolated-async", isolate=True)
async def parent_isolated_async(n: int) -> str:
    return (await child.submit(n=n)).id


@job("parent-isolated-thread", isolate=True)
def parent_isolated_thread(n: int) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(child.submit(n=n)).id))
    thread.start()
    thread.join()
    return found[0]


@job("refused")
async def refused(ctx: Context, key: str) -> list[str]:
    """Submit under a key, which needs the database, and to an unknown queue."""
    return [await error_of(Options(idempotency_key=key)), await error_of(Options(queue="nowhere"))]


@job("refused-isolated", isolate=True)
async def refused_isolated(key: str) -> list[str]:
    return [await error_of(Options(idempotency_key=key)), await error_of(Options(queue="nowhere"))]


async def error_of(options: Options) -> str:
    try:
        await child.submit_with(options, n=1)
    except JobtapeError as error:
        return str(error)
    return "none"


@job("spawn")
async def spawn(n: int, ctx: Context) -> list[str]:
    return [(await ctx.spawn(child, n=each, key=str(each))).id for each in range(n)]


@job("spawn-isolated", isolate=True)
def spawn_isolated(n: int, ctx: Context) -> list[str]:
    return [ctx.spawn_sync(child, n=each, key=str(each)).id for each in range(n)]
