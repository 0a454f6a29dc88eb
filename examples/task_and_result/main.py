"""Starts a task and hands out its result."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Body, FastAPI, HTTPException, Query, Request, Response

import jobtape
from jobtape import Client, job
from jobtape.client import NotFound, NotInTime


@job("words.count", timeout=60)
def count_words(text: str) -> dict[str, int]:
    """Return how often each word is in the text."""
    return dict(Counter(text.lower().split()).most_common(10))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Client]]:
    """Submit jobs, and read them through the API of JOBTAPE_URL."""
    async with jobtape.lifespan(app), Client() as client:
        yield {"client": client}


app = FastAPI(title="Words", lifespan=lifespan)


@app.post("/counts", status_code=202)
async def start(text: Annotated[str, Body(max_length=100_000)], response: Response) -> dict[str, str]:
    """Start to count. ``Location`` is the URL of the result."""
    submitted = await count_words.submit(text=text)
    response.headers["Location"] = f"/counts/{submitted.id}"
    return {"job": submitted.id}


@app.get("/counts/{job_id}")
async def result(request: Request, job_id: UUID, wait: Annotated[float, Query(ge=0, le=30)] = 0) -> dict[str, int]:
    """Return the result, for which this waits up to ``wait`` seconds. 404: no such task. 409: it has not ended."""
    try:
        ended = await request.state.client.wait(str(job_id), timeout=wait)
    except NotFound:
        raise HTTPException(404, "there is no such task") from None
    except NotInTime:
        raise HTTPException(409, "the task has not ended: ask again", {"Retry-After": "1"}) from None
    if ended.state != "succeeded":
        raise HTTPException(500, "the task failed")
    found: dict[str, int] = ended.result
    return found
