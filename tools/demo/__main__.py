"""``python -m tools.demo``: the story. Exit code 0 only when everything came out right."""

import asyncio
import shutil
import signal
import sys
import time
from collections import Counter
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from tools.brokers.find import Broker, BrokerError, find_broker
from tools.clone import DATA
from tools.demo.api import Api
from tools.demo.checks import check_job
from tools.demo.metrics import check_counts
from tools.demo.orders import DATA as SAMPLES
from tools.demo.orders import Order, Wrong, batch, orders
from tools.demo.screen import FINAL, Screen
from tools.demo.stack import NotStartedError, Stack

SECONDS = 120
"""For everything after the broker is found (a first pull of its image can take longer than that)."""
CLEANING = 25
LABEL = ("demo", "batch")
LOOK_EVERY = 0.25

Row = tuple[str, str, str, bool]


async def run(stack: Stack, console: Console) -> list[Row]:
    """Start, submit, watch and check: a row of the table for each thing that was checked."""
    shutil.copytree(SAMPLES, stack.files / "in", ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
    stack.start()
    console.print(f"Jobtape is ready after {await stack.ready():.1f} s: {stack.base_url}, namespace {stack.namespace}")
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=20, limits=limits, trust_env=False) as http:
        api = Api(http)
        singles = orders(stack.files, stack.mails)
        ids = {await api.submit(order): order for order in singles}
        many = batch(labels=dict([LABEL]))
        begun = time.monotonic()
        many_ids = await api.submit_batch(many)
        console.print(
            f"Accepted: {len(singles)} jobs, and a batch of {len(many):,} in {time.monotonic() - begun:.2f} s"
        )
        await watch(api, ids, len(many), console)
        console.print("Checking results, histories and counts ...")
        rows = [await check(api, job_id, order) for job_id, order in ids.items()]
        rows.append(await check_many(api, dict(zip(many_ids, many, strict=True))))
        everything = Counter((order.type, order.state) for order in [*singles, *many])
        rows.append(row("the counts", "/metrics", check_counts, await api.metrics(), everything))
        if dead := stack.dead():
            rows.append(("the processes", ", ".join(dead), "ended by themselves", False))
    return rows


async def watch(api: Api, ids: dict[str, Order], many: int, console: Console) -> None:
    """Show the jobs until all are closed."""
    batch_title = f"a batch of {many:,}"
    with Screen(console) as screen:
        while True:
            jobs = await api.jobs(ids)
            for job in jobs:
                screen.job(ids[job["id"]].title, job)
            states = Counter(job["state"] for job in await api.labelled(*LABEL))
            closed = sum(states[state] for state in FINAL)
            state = "succeeded" if states["succeeded"] == many else "failed" if closed == many else "running"
            screen.show(batch_title, state, closed / many, f"{closed:,} done")
            if closed == many and all(job["state"] in FINAL for job in jobs):
                return
            await asyncio.sleep(LOOK_EVERY)


async def check(api: Api, job_id: str, order: Order) -> Row:
    """One job's row."""
    job, history = await asyncio.gather(api.job(job_id), api.history(job_id))
    return await asyncio.to_thread(row, order.title, order.type, check_job, order, job, history)


async def check_many(api: Api, ids: dict[str, Order]) -> Row:
    """The batch's row: every job of it is checked as the single ones are."""
    rows = await asyncio.gather(*(check(api, job_id, order) for job_id, order in ids.items()))
    wrong = [f"{title}: {found}" for title, _, found, right in rows if not right]
    found = f"{len(wrong)} wrong, the first: {wrong[0]}" if wrong else f"{len(rows):,} sums and histories right"
    return (f"a batch of {len(rows):,}", "add", found, not wrong)


def row(title: str, kind: str, function: Any, *arguments: Any) -> Row:
    """What ``function`` found right, or what was wrong."""
    try:
        return (title, kind, function(*arguments), True)
    except Wrong as fault:
        return (title, kind, str(fault), False)
    except (KeyError, TypeError, ValueError, OSError) as error:
        return (title, kind, f"{type(error).__name__}: {error}", False)


def show(rows: list[Row], console: Console) -> None:
    """The table, or lines of it where there is no terminal."""
    if not console.is_terminal:
        for title, kind, found, right in rows:
            console.print(f"  {'right' if right else 'WRONG'}  {title} ({kind}): {found}", soft_wrap=True)
        return
    table = Table("what", "job type", "found", "")
    for title, kind, found, right in rows:
        table.add_row(title, kind, found, "[green]right[/]" if right else "[red]WRONG[/]")
    console.print(table)


async def limited(stack: Stack, console: Console) -> list[Row]:
    """``run`` within its time; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(SECONDS - CLEANING):
        return await run(stack, console)


def demo(console: Console) -> bool:
    """The whole of it; whether everything came out right."""
    begun = time.monotonic()
    try:
        broker: Broker = find_broker(DATA, lambda line: console.print(line, soft_wrap=True))
    except BrokerError as error:
        console.print(str(error), soft_wrap=True)
        return False
    stack = Stack(broker.url)
    faults: list[str] = []
    rows: list[Row] = []
    try:
        rows = asyncio.run(limited(stack, console))
    except (Wrong, NotStartedError, httpx.HTTPError, OSError) as error:
        # asyncio.timeout's TimeoutError is an OSError.
        what = str(error) or f"not done within {SECONDS - CLEANING} s"
        faults.append(f"{type(error).__name__}: {what}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        faults.append("interrupted")
    finally:
        # From here on it takes some seconds at most, and what is cut short would stay behind on the broker.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if faults or not all(right for *_, right in rows):
            console.print(stack.logs(), markup=False, soft_wrap=True)
        show(rows, console)
        faults += stack.close()
        broker.stop()
    wrong = [title for title, _, _, right in rows if not right] + faults
    for fault in faults:
        console.print(fault, style="red", markup=False, soft_wrap=True)
    seconds = time.monotonic() - begun
    console.print(f"{'Everything came out right' if not wrong else 'NOT right: see above'}, in {seconds:.1f} s")
    return not wrong and bool(rows)


if __name__ == "__main__":
    sys.exit(0 if demo(Console(highlight=False)) else 1)
