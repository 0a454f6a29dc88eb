"""The demo as a client: it knows Jobtape by its REST API alone."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx

from tools.demo.orders import Order, expect

AT_ONCE = 8
PAGE = 500
PATIENCE = 10.0
PAUSE = 0.25
"""Seconds."""


class Api:
    """Requests to the API that ``http`` is for. Each raises Wrong when the answer is not the one that is promised, and
    httpx's errors when there is none.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._room = asyncio.Semaphore(AT_ONCE)

    async def submit(self, order: Order) -> str:
        """POST /jobs; the job's id."""
        answer = await self._http.post("/jobs", json=order.body())
        expect(answer.status_code == 202, f"POST /jobs {order.type}: {answer.status_code} {answer.text[:300]}")
        job_id = str(answer.json()["id"])
        location = answer.headers.get("Location", "")
        expect(location.endswith(f"/jobs/{job_id}"), f"its Location is {location!r}")
        return job_id

    async def submit_batch(self, orders: list[Order]) -> list[str]:
        """POST /jobs/batch; the jobs' ids in the order given."""
        answer = await self._http.post("/jobs/batch", json=[order.body() for order in orders])
        expect(answer.status_code == 200, f"POST /jobs/batch: {answer.status_code} {answer.text[:300]}")
        delivered = answer.json()
        counts = (delivered["accepted"], delivered["refused"], delivered["unknown"])
        expect(counts == (len(orders), 0, 0), f"of the batch were accepted, refused and unknown: {counts}")
        return [str(item["id"]) for item in delivered["items"]]

    async def job(self, job_id: str) -> dict[str, Any]:
        """GET /jobs/{id}."""
        return await self._get(f"/jobs/{job_id}")

    async def history(self, job_id: str) -> list[dict[str, Any]]:
        """GET /jobs/{id}/events; all of them."""
        items: list[dict[str, Any]] = (await self._get(f"/jobs/{job_id}/events"))["items"]
        return items

    async def jobs(self, job_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Several jobs at once, some requests at a time."""
        return await asyncio.gather(*(self.job(job_id) for job_id in job_ids))

    async def labelled(self, name: str, value: str) -> list[dict[str, Any]]:
        """All jobs with that label, newest first, page by page."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            query = {"label": f"{name}:{value}", "limit": PAGE} | ({"cursor": cursor} if cursor is not None else {})
            page = await self._get("/jobs", query)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found

    async def metrics(self) -> str:
        """GET /metrics, as text."""
        answer = await self._patiently("/metrics")
        expect(answer.status_code == 200, f"GET /metrics: {answer.status_code}")
        return answer.text

    async def _get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._room:
            answer = await self._patiently(path, query)
        expect(answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text[:300]}")
        body: dict[str, Any] = answer.json()
        return body

    async def _patiently(self, path: str, query: dict[str, Any] | None = None) -> httpx.Response:
        """A GET does no harm twice: an API that was started again a moment ago is asked again, for some seconds."""
        for _ in range(int(PATIENCE / PAUSE)):
            try:
                return await self._http.get(path, params=query)
            except httpx.TransportError:
                await asyncio.sleep(PAUSE)
        return await self._http.get(path, params=query)
