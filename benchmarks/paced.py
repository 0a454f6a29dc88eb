"""Submits many jobs through ``POST /jobs/batch``, at a pace, and waits for what became of them."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from jobtape.schemas.job import Job
from jobtape.view.store import Store
from tests.ledger import Ledger

EVERY = 0.1
"""Seconds between two batches."""
PAGE = 500


def submit(client: httpx.Client, items: Sequence[dict[str, Any]], ledger: Ledger, *, rate: float) -> float:
    """Submit ``items``, ``rate`` a second, each until it is accepted or not known to be; the seconds that it took.

    A batch that was refused as a whole (no broker, no answer before it was read) is sent again.
    """
    began = time.monotonic()
    size = max(1, round(rate * EVERY))
    waiting = [list(items[start : start + size]) for start in range(0, len(items), size)]
    for number, first in enumerate(waiting):
        time.sleep(max(0.0, began + number * EVERY - time.monotonic()))
        batch = first
        while batch:
            batch = _send(client, batch, ledger)
            if batch:
                time.sleep(EVERY)
    return time.monotonic() - began


def _send(client: httpx.Client, batch: list[dict[str, Any]], ledger: Ledger) -> list[dict[str, Any]]:
    """What has to be sent again."""
    answer = client.post("/jobs/batch", json=batch)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return batch
    refused = []
    for item, sent in zip(answer.raise_for_status().json()["items"], batch, strict=True):
        match item["status"]:
            case "accepted":
                ledger.ok.append(item["id"])
            case "unknown":
                ledger.unknown.append(item["id"])
            case _:
                refused.append(sent)
    return refused


def wait_final(store: Store, ledger: Ledger, limit: float) -> list[Job]:
    """All jobs that exist, once they are final and all that were accepted are among them.

    Raises TimeoutError after ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    while True:
        jobs = list(_all(store, sorted(ledger.sent)))
        missing = len(set(ledger.ok) - {job.id for job in jobs})
        open_jobs = [job for job in jobs if not job.final]
        if not missing and not open_jobs:
            return jobs
        if time.monotonic() > deadline:
            example = f", like {open_jobs[0].id} ({open_jobs[0].state})" if open_jobs else ""
            raise TimeoutError(f"after {limit:g} s {missing} jobs are missing, {len(open_jobs)} not final{example}")
        time.sleep(1)


def _all(store: Store, job_ids: Sequence[str]) -> Iterator[Job]:
    for start in range(0, len(job_ids), PAGE):
        yield from store.jobs(job_ids[start : start + PAGE]).values()
