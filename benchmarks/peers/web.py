"""FastAPI alone: routes that do nothing, and a BackgroundTask that keeps its result in memory.

uvicorn benchmarks.peers.web:app
"""

from typing import Any
from uuid import uuid4

from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel

app = FastAPI()
results: dict[str, int] = {}


class Submission(BaseModel):
    """The body of Jobtape's ``POST /jobs``, as far as it is used here."""

    type: str
    payload: dict[str, Any]


async def submit(job: Submission) -> dict[str, Any]:
    """Validate the body, and answer."""
    return {"id": str(uuid4()), "type": job.type, "state": "queued"}


async def submit_in_background(job: Submission, tasks: BackgroundTasks) -> dict[str, Any]:
    """Validate the body, run the job in the process after the answer, and keep its result in memory."""
    job_id = str(uuid4())
    tasks.add_task(_add, job_id, job.payload["x"], job.payload["y"])
    return {"id": job_id, "type": job.type, "state": "queued"}


async def read(job_id: str) -> dict[str, Any]:
    """Answer with a constant."""
    return {"id": job_id, "state": "succeeded", "result": 2}


async def _add(job_id: str, x: int, y: int) -> None:
    results[job_id] = x + y


app.post("/jobs", status_code=202)(submit)
app.post("/background", status_code=202)(submit_in_background)
app.get("/jobs/{job_id}")(read)
