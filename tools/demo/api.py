"""The demo as a client: it knows Jobtape only by its REST API."""

import asyncio
from typing import Any

import httpx

from tools.demo.demo_jobs import DemoJob, expect

CONCURRENT = 8
PAGE = 500
ATTEMPTS = 40
PAUSE = 0.25
"""Seconds between attempts."""


class Api:
    """Requests through ``http``. They raise Wrong if an answer is not as promised, and httpx's errors if none comes."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._slots = asyncio.Semaphore(CONCURRENT)

    async def submit(self, wanted: DemoJob) -> str:
        """POST /jobs. Return the job's id."""
        answer = await self._http.post("/jobs", json=wanted.body())
        expect(answer.status_code == 202, f"POST /jobs {wanted.type}: {answer.status_code} {answer.text[:300]}")
        job_id = str(answer.json()["id"])
        location = answer.headers.get("Location", "")
        expect(location.endswith(f"/jobs/{job_id}"), f"its Location is {location!r}")
        return job_id

    async def submit_batch(self, jobs: list[DemoJob]) -> list[str]:
        """POST /jobs/batch. Return the jobs' ids in the given order."""
        answer = await self._http.post("/jobs/batch", json=[job.body() for job in jobs])
        expect(answer.status_code == 200, f"POST /jobs/batch: {answer.status_code} {answer.text[:300]}")
        body = answer.json()
        counts = (body["accepted"], body["refused"], body["unknown"])
        expect(counts == (len(jobs), 0, 0), f"accepted, refused and unknown jobs of the batch: {counts}")
        return [str(item["id"]) for item in body["items"]]

    async def job(self, job_id: str) -> dict[str, Any]:
        """GET /jobs/{id}."""
        job: dict[str, Any] = (await self._get(f"/jobs/{job_id}")).json()
        return job

    async def history(self, job_id: str) -> list[dict[str, Any]]:
        """GET /jobs/{id}/events."""
        items: list[dict[str, Any]] = (await self._get(f"/jobs/{job_id}/events")).json()["items"]
        return items

    async def labelled(self, name: str, value: str) -> list[dict[str, Any]]:
        """GET all jobs with that label, newest first, page by page."""
        found: list[dict[str, Any]] = []
        query: dict[str, str | int] = {"label": f"{name}:{value}", "limit": PAGE}
        while True:
            page = (await self._get("/jobs", query)).json()
            found += page["items"]
            if page["next"] is None:
                return found
            query["cursor"] = page["next"]

    async def metrics(self) -> str:
        """GET /metrics, as text."""
        return (await self._get("/metrics")).text

    async def _get(self, path: str, query: dict[str, str | int] | None = None) -> httpx.Response:
        async with self._slots:
            for left in reversed(range(ATTEMPTS)):
                try:
                    answer = await self._http.get(path, params=query)
                    break
                except httpx.TransportError:
                    # If a process of the demo is killed, ``jobtape up`` starts another one.
                    if not left:
                        raise
                    await asyncio.sleep(PAUSE)
        expect(answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text[:300]}")
        return answer
