"""Submits many jobs through ``POST /jobs/batch`` at a given rate, and waits until they are final."""

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
    """Submit ``items``, ``rate`` a second, and return the seconds it took. The ledger records what became of each.

    Refused items are sent again until they are accepted, or it is unknown whether they are.
    """
    started = time.monotonic()
    size = max(1, round(rate * EVERY))
    waiting = [list(items[start : start + size]) for start in range(0, len(items), size)]
    for number, first in enumerate(waiting):
        time.sleep(max(0.0, started + number * EVERY - time.monotonic()))
        batch = first
        while batch:
            batch = _send(client, batch, ledger)
            if batch:
                time.sleep(EVERY)
    return time.monotonic() - started


def _send(client: httpx.Client, batch: list[dict[str, Any]], ledger: Ledger) -> list[dict[str, Any]]:
    """Send a batch, and return the items to send again."""
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
    """Wait until all accepted jobs are final, and return all jobs that exist.

    Does not wait for a job whose submission got no confirm: it may be on the tape but on no queue, until its client
    submits it again. Raises TimeoutError after ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    accepted = set(ledger.ok)
    while True:
        jobs = list(_all(store, sorted(ledger.sent)))
        final = {job.id for job in jobs if job.final}
        open_ids = accepted - final
        if not open_ids:
            return jobs
        if time.monotonic() > deadline:
            example = min(open_ids)
            state = next((job.state for job in jobs if job.id == example), "not in the view")
            raise TimeoutError(
                f"after {limit:g} s {len(open_ids)} accepted jobs are not final, such as {example}: {state}"
            )
        time.sleep(1)


def _all(store: Store, job_ids: Sequence[str]) -> Iterator[Job]:
    for start in range(0, len(job_ids), PAGE):
        yield from store.jobs(job_ids[start : start + PAGE]).values()
