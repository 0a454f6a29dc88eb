"""Jobtape's client for the driver: HTTP alone, over one kept connection for each request that is under way."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.peers import client
from benchmarks.rig.load.wire import Answer, Wire

BATCH = 10_000
"""Submissions in a batch, as many as an API allows by default."""
KEPT = 2.0
"""Seconds after which an idle connection is not used again: the server closes it after five."""


class JobtapeClient:
    """Submits with ``POST /jobs/batch``, and waits with ``Prefer: wait``."""

    def __init__(self) -> None:
        self._wire: Wire | None = None
        self._used = 0.0

    async def open(self) -> None:
        """The first request connects."""

    async def submit(self, numbers: Sequence[int]) -> list[Any]:
        """Submit ``add(n, n)`` for each number, in batches."""
        return await self._batches([{"type": "add", "payload": {"x": n, "y": n}} for n in numbers])

    async def submit_due(self, due: Sequence[float]) -> None:
        """Submit ``late`` for each due time, with ``run_at``."""
        await self._batches(
            [
                {"type": "late", "payload": {"due": each}, "run_at": datetime.fromtimestamp(each, UTC).isoformat()}
                for each in due
            ]
        )

    async def result(self, handle: Any) -> int:
        """Read the result of a job that has succeeded."""
        answer = await self._request("GET", f"/jobs/{handle}")
        return int(answer.json()["result"])

    async def call(self, number: int) -> int:
        """Submit with ``Prefer: wait``."""
        job = {"type": "add", "payload": {"x": number, "y": number}}
        answer = await self._request("POST", "/jobs", job, Prefer="wait=30")
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {answer.body.decode()}")
        return int(answer.json()["result"])

    async def stored(self) -> int:
        """Return how many jobs have succeeded in the view."""
        metrics = (await self._request("GET", "/metrics")).body.decode()
        lines = (line for line in metrics.splitlines() if line.startswith("jobtape_events_total{"))
        return sum(round(float(line.rsplit(" ", 1)[1])) for line in lines if 'event="succeeded"' in line)

    async def _request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self._wire is not None and time.monotonic() - self._used > KEPT:
            await self._wire.__aexit__()
            self._wire = None
        if self._wire is None:
            self._wire = await Wire(os.environ["BENCH_API"]).__aenter__()
        answer = await self._wire.request(method, path, body, **headers)
        self._used = time.monotonic()
        return answer

    async def _batches(self, items: list[dict[str, Any]]) -> list[Any]:
        job_ids = []
        for start in range(0, len(items), BATCH):
            answer = await self._request("POST", "/jobs/batch", items[start : start + BATCH])
            if answer.status != 200 or answer.json()["accepted"] != len(items[start : start + BATCH]):
                raise RuntimeError(f"{answer.status} {answer.body[:500].decode()}")
            job_ids += [item["id"] for item in answer.json()["items"]]
        return job_ids


def make_client() -> client.Client:
    """Return a client."""
    return JobtapeClient()
