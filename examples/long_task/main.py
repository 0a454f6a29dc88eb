"""Runs a task of minutes, with a status that all processes share, and a button to cancel it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel

import jobtape
from jobtape import Client, Context, job
from jobtape.client import Conflict, NotFound


@job("report.make", timeout=600)
async def make_report(ctx: Context, pages: int) -> str:
    """Make a report, page by page."""
    for page in range(pages):
        ctx.progress(page / pages, f"page {page + 1} of {pages}")
        await asyncio.sleep(0.1)  # the work
    return f"a report of {pages} pages"


class Status(BaseModel):
    """What the page of a report shows: its state, how much is done (0 to 1) with a text, and the result at the end."""

    state: jobtape.JobState
    done: float = 0
    text: str = ""
    result: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Client]]:
    """Submit jobs, and read them through the API of JOBTAPE_URL."""
    async with jobtape.lifespan(app), Client() as client:
        yield {"client": client}


app = FastAPI(title="Reports", lifespan=lifespan)


async def report(request: Request, job_id: UUID) -> jobtape.Job:
    """Return the job of a report. Check here that it belongs to the user who asks. 404: there is none."""
    client: Client = request.state.client
    try:
        return await client.get(str(job_id))
    except NotFound:
        raise HTTPException(404, "there is no such report") from None


@app.post("/reports", status_code=202)
async def start(pages: Annotated[int, Query(ge=1, le=1000)]) -> dict[str, str]:
    """Start a report."""
    return {"job": (await make_report.submit(pages=pages)).id}


@app.get("/reports/{job_id}")
async def status(found: Annotated[jobtape.Job, Depends(report)]) -> Status:
    """Return how far the report is."""
    shown = Status(state=found.state, result=found.result)
    if found.progress is not None:
        shown.done, shown.text = found.progress.fraction or 0, found.progress.message or ""
    return shown


@app.delete("/reports/{job_id}", status_code=202)
async def cancel(request: Request, found: Annotated[jobtape.Job, Depends(report)]) -> dict[str, str]:
    """Cancel the report. 409: it has ended."""
    try:
        await request.state.client.cancel(found)
    except Conflict:
        raise HTTPException(409, "the report has ended") from None
    return {"job": found.id}
