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
    """All jobs that exist, once those that were accepted are final. Raises TimeoutError after ``limit`` seconds.

    One whose submission got no confirm may be on the tape and on no queue: who submits it again under its key places
    it. So it is not waited for; it is among the jobs, in the state that it has.
    """
    deadline = time.monotonic() + limit
    accepted = set(ledger.ok)
    while True:
        jobs = list(_all(store, sorted(ledger.sent)))
        final = {job.id for job in jobs if job.final}
        left = accepted - final
        if not left:
            return jobs
        if time.monotonic() > deadline:
            example = min(left)
            state = next((job.state for job in jobs if job.id == example), "not in the view")
            raise TimeoutError(f"after {limit:g} s {len(left)} accepted jobs are not final, like {example}: {state}")
        time.sleep(1)


def _all(store: Store, job_ids: Sequence[str]) -> Iterator[Job]:
    for start in range(0, len(job_ids), PAGE):
        yield from store.jobs(job_ids[start : start + PAGE]).values()
