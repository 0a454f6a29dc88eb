"""``python -m tools.demo``: start, submit, watch, check, remove. The exit code is 0 only if everything was right."""

import asyncio
import shutil
import signal
import sys
import time
from collections import Counter
from typing import Any

import httpx
from rich.console import Console

from jobtape import Client, JobtapeError
from jobtape.schemas.job import FINAL
from tools.brokers.find import BrokerError, find_broker
from tools.clone import DATA
from tools.demo.checks import check_counts, check_job
from tools.demo.demo_jobs import DATA as SAMPLES
from tools.demo.demo_jobs import DemoJob, Wrong, batch, expect, single_jobs
from tools.demo.stack import Stack
from tools.ready import NotReadyError

LIMIT = 95
"""Seconds for everything between finding the broker and removing what was made."""
LABELS = {"demo": "batch"}
CONCURRENT = 8
POLL_EVERY = 0.25

Row = tuple[str, str, str, bool]
"""What was checked, its job type, what was found, and whether that is right."""


async def run(stack: Stack, console: Console) -> list[Row]:
    """Submit the jobs, watch them and check everything. Return a row for each check."""
    async with Client(stack.base_url, api_key="") as client:
        singles = single_jobs(stack.files, stack.mails)
        ids = {(await client.submit(wanted.type, wanted.payload)).id: wanted for wanted in singles}
        many = batch(labels=LABELS)
        begun = time.monotonic()
        many_ids = await submit_batch(client, many)
        console.print(
            f"Accepted: {len(singles)} jobs, and a batch of {len(many):,} in {time.monotonic() - begun:.2f} s"
        )
        await watch(client, ids, len(many), console)
        console.print("Checking results, histories and counters ...")
        rows = [await check(client, job_id, wanted) for job_id, wanted in ids.items()]
        rows.append(await check_many(client, dict(zip(many_ids, many, strict=True))))
    everything = Counter((wanted.type, wanted.state) for wanted in [*singles, *many])
    metrics = await asyncio.to_thread(httpx.get, f"{stack.base_url}/metrics", trust_env=False)
    rows.append(row("the counters", "/metrics", check_counts, metrics.text, everything))
    if ended := stack.ended():
        rows.append(("the processes", ", ".join(ended), "ended by themselves", False))
    return rows


async def submit_batch(client: Client, jobs: list[DemoJob]) -> list[str]:
    """Submit all jobs in one request. Return their ids in the given order. Raises Wrong unless all are accepted."""
    answer = (await client.request("POST", "/jobs/batch", json=[job.body() for job in jobs])).content
    counts = (answer["accepted"], answer["refused"], answer["unknown"])
    expect(counts == (len(jobs), 0, 0), f"accepted, refused and unknown jobs of the batch: {counts}")
    return [str(item["id"]) for item in answer["items"]]


async def read(client: Client, job_id: str) -> dict[str, Any]:
    """Return the job as the REST API shows it."""
    return (await client.request("GET", f"/jobs/{job_id}")).content


async def watch(client: Client, ids: dict[str, DemoJob], many: int, console: Console) -> None:
    """Print the jobs, a line for each new state and each quarter of progress, until all have ended."""
    printed: dict[str, tuple[str, int]] = {}

    def show(title: str, state: str, fraction: float, message: str | None) -> None:
        step = (state, int(fraction * 4))
        if printed.get(title) != step:
            printed[title] = step
            line = ", ".join(filter(None, (state, "" if state in FINAL else f"{fraction:.0%}", message)))
            console.print(f"  {title}: {line}", markup=False)

    while True:
        jobs = [await read(client, job_id) for job_id in ids]
        for job in jobs:
            progress = job["progress"] or {"fraction": 0.0, "message": None}
            show(ids[job["id"]].title, job["state"], progress["fraction"], progress["message"])
        states = Counter([job.state.value async for job in client.list(labels=LABELS)])
        ended = sum(states[state] for state in FINAL)
        state = "succeeded" if states["succeeded"] == many else "failed" if ended == many else "running"
        show(f"a batch of {many:,}", state, ended / many, f"{ended:,} done")
        if ended == many and all(job["state"] in FINAL for job in jobs):
            return
        await asyncio.sleep(POLL_EVERY)


async def check(client: Client, job_id: str, wanted: DemoJob) -> Row:
    """Check one job. Return its row."""
    job = await read(client, job_id)
    history = (await client.request("GET", f"/jobs/{job_id}/events")).content["items"]
    return await asyncio.to_thread(row, wanted.title, wanted.type, check_job, wanted, job, history)


async def check_many(client: Client, ids: dict[str, DemoJob]) -> Row:
    """Check every job of the batch. Return one row for it."""
    some = asyncio.Semaphore(CONCURRENT)

    async def check_one(job_id: str, wanted: DemoJob) -> Row:
        async with some:
            return await check(client, job_id, wanted)

    rows = await asyncio.gather(*(check_one(job_id, wanted) for job_id, wanted in ids.items()))
    wrong = [f"{title}: {found}" for title, _, found, right in rows if not right]
    found = f"{len(wrong)} wrong, the first: {wrong[0]}" if wrong else f"{len(rows):,} sums and histories right"
    return (f"a batch of {len(rows):,}", "add", found, not wrong)


def row(title: str, job_type: str, function: Any, *arguments: Any) -> Row:
    """Return the row of a check: what ``function`` returns, or what was wrong."""
    try:
        return (title, job_type, function(*arguments), True)
    except (Wrong, KeyError, TypeError, ValueError, OSError) as error:
        return (title, job_type, f"{type(error).__name__}: {error}", False)


def show(rows: list[Row], console: Console) -> None:
    """Print a line for each row."""
    for title, job_type, found, right in rows:
        line = f"  {'right' if right else 'WRONG'}  {title} ({job_type}): {found}"
        console.print(line, style="green" if right else "red", markup=False, soft_wrap=True)


def demo(console: Console) -> bool:
    """Run the demo. Return whether everything was right."""
    begun = time.monotonic()
    # SIGTERM must remove what was made, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        broker = find_broker(DATA, lambda line: console.print(line, soft_wrap=True))
    except BrokerError as error:
        console.print(str(error), soft_wrap=True)
        return False
    deadline = time.monotonic() + LIMIT
    stack = Stack(broker.url)
    faults: list[str] = []
    rows: list[Row] = []
    try:
        shutil.copytree(SAMPLES, stack.files / "in", ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
        seconds = stack.start()
        console.print(f"Jobtape is ready after {seconds:.1f} s: {stack.base_url}, namespace {stack.namespace}")
        rows = asyncio.run(asyncio.wait_for(run(stack, console), deadline - time.monotonic()))
    except (Wrong, NotReadyError, JobtapeError, httpx.HTTPError, OSError) as error:
        # The TimeoutError of asyncio is an OSError without a text.
        faults.append(f"{type(error).__name__}: {str(error) or f'not done within {LIMIT} s'}")
    except KeyboardInterrupt:
        faults.append("interrupted")
    finally:
        # What is left takes some seconds. If it were interrupted, queues would stay on the broker.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if faults or not all(right for *_, right in rows):
            console.print(stack.logs(), markup=False, soft_wrap=True)
        show(rows, console)
        try:
            stack.close()
        except Exception as error:  # noqa: BLE001 (it is one more fault)
            faults.append(f"stopping and removing: {type(error).__name__}: {error}")
        broker.stop()
    for fault in faults:
        console.print(fault, style="red", markup=False, soft_wrap=True)
    right = not faults and bool(rows) and all(right for *_, right in rows)
    took = time.monotonic() - begun
    console.print(f"{'Everything came out right' if right else 'NOT right: see above'}, in {took:.1f} s")
    return right


if __name__ == "__main__":
    sys.exit(0 if demo(Console(highlight=False)) else 1)
