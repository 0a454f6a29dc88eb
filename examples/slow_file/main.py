"""Offers a file that takes a while to make: 202 until it is there, then the file."""

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

import jobtape
from examples.settings import Settings
from jobtape import Client, Context, job
from jobtape.client import NotFound


def path_of(job_id: str) -> Path:
    """Return the path of an export. API and workers share the folder; with several machines use an object store."""
    return Settings().files / "exports" / f"{job_id}.csv"


@job("export.make", timeout=600)
def make_export(ctx: Context, rows: int) -> int:
    """Write a CSV file, and return its size in bytes."""
    path = path_of(ctx.job_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{ctx.attempt}.part")  # nobody reads a file that is not complete
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("number", "square"))
        for number in range(1, rows + 1):
            writer.writerow((number, number**2))
            if number % 1000 == 0:
                ctx.progress(number / rows, f"{number} of {rows} rows")
    part.replace(path)
    return path.stat().st_size


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Client]]:
    """Submit jobs, and read them through the API of JOBTAPE_URL."""
    async with jobtape.lifespan(app), Client() as client:
        yield {"client": client}


app = FastAPI(title="Exports", lifespan=lifespan)


@app.post("/exports", status_code=202)
async def start(rows: Annotated[int, Query(ge=1, le=10_000_000)], response: Response) -> dict[str, str]:
    """Start to make a file. ``Location`` is its URL."""
    submitted = await make_export.submit(rows=rows)
    response.headers["Location"] = f"/exports/{submitted.id}"
    return {"job": submitted.id}


@app.get("/exports/{job_id}", response_class=FileResponse, responses={202: {"description": "not ready yet"}})
async def download(request: Request, job_id: UUID) -> Response:
    """Return the file; 202 with ``Retry-After`` while it is made. 404: there is none. 500: it could not be made."""
    client: Client = request.state.client
    try:
        found = await client.get(str(job_id))
    except NotFound:
        raise HTTPException(404, "there is no such export") from None
    if not found.final:
        done = found.progress.fraction if found.progress else 0
        return JSONResponse({"state": found.state, "done": done}, 202, {"Retry-After": "1"})
    if found.state != "succeeded":
        raise HTTPException(500, "the file could not be made: start it again")
    return FileResponse(path_of(found.id), media_type="text/csv", filename="squares.csv")
