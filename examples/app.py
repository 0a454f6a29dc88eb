"""An application with Jobtape in it: ``POST /thumbnails`` accepts a picture and answers at once.

    JOBTAPE_JOBS=examples.jobs uvicorn examples.app:app
    curl -i -F file=@examples/data/rocket.jpg http://127.0.0.1:8000/thumbnails

Start the workers with ``jobtape up``, or ``jobtape worker`` and ``jobtape projector``, in the same environment.

It replaces this code with FastAPI's BackgroundTasks:

    @app.post("/thumbnails", status_code=202)
    async def upload(file: UploadFile, background_tasks: BackgroundTasks):
        name = await store(file)
        background_tasks.add_task(make_thumbnails, name)
        return {"file": name}

There the task is only in the memory of the web process. A restart or a crash loses it, a failure is only a line in the
log, its progress cannot be read, and it slows down the requests. Here the answer 202 means that the broker has stored
the job. Another process runs it, and runs it again if that process dies. ``Location`` is the URL of its state,
progress, error and result.
"""

import asyncio
from pathlib import Path, PurePath
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import FastAPI, Form, HTTPException, Request, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from pydantic import BaseModel

import jobtape
from examples.settings import Settings
from examples.thumbnails import MAX_FILE_BYTES, Edge, thumbnail

CHUNK_BYTES = 256 * 1024
ENVELOPE_BYTES = 64 * 1024
"""Bytes allowed for the other fields of the form and its boundaries."""
PREFIX = "/jobtape"


class Accepted(BaseModel):
    """The job's id (``Location`` is the URL of its state), and the name of the stored file."""

    job: str
    file: str


app = FastAPI(title="Thumbnails", lifespan=jobtape.lifespan)
app.mount(PREFIX, jobtape.create_app())


# There are two limits, because a form is read completely before this function begins. The framework stops an upload
# that is too long while it arrives, whatever its Content-Length says; ``store`` checks the file itself.
@app.post("/thumbnails", status_code=202, max_body_size=MAX_FILE_BYTES + ENVELOPE_BYTES)
async def upload(
    request: Request, response: Response, file: UploadFile, sizes: Annotated[list[Edge] | None, Form()] = None
) -> Accepted:
    """Store the picture and submit a job. 413: too large. 503: the broker did not confirm in time."""
    name = await store(file, Settings().files)
    try:
        job = await thumbnail.submit(name, *([sizes] if sizes else []))
    except jobtape.PayloadInvalid as error:
        raise HTTPException(422, str(error)) from error
    except jobtape.BrokerUnavailable as error:
        # Keep the file: the broker may have stored the job although it did not answer in time.
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    response.headers["Location"] = f"{request.scope.get('root_path', '')}{PREFIX}/jobs/{job.id}"
    return Accepted(job=job.id, file=name)


@app.get("/thumbnails/{job_id}/{name}")
async def download(job_id: UUID, name: Annotated[str, PathParameter(pattern=r"^\d{1,4}\.(jpg|png)$")]) -> FileResponse:
    """Return a finished thumbnail by its name in the job's result. 404: there is none."""
    path = Settings().files / "thumbnails" / str(job_id) / name
    if not await asyncio.to_thread(path.is_file):
        raise HTTPException(404, f"no thumbnail {name} of the job {job_id}")
    return FileResponse(path)


async def store(file: UploadFile, folder: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Copy an upload in pieces into ``folder`` under a new name, and return that name.

    Only a known suffix of the sender's name is kept. Raises HTTPException 413, and then keeps no file.
    """
    suffix = PurePath(file.filename or "").suffix.lower()
    name = uuid4().hex + (suffix if suffix in (".jpg", ".jpeg", ".png", ".webp", ".gif") else "")
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    part = folder / f".{name}.part"
    try:
        await _copy(file, part, max_bytes)
        await asyncio.to_thread(part.replace, folder / name)
    finally:
        await asyncio.to_thread(part.unlink, missing_ok=True)
    return name


async def _copy(file: UploadFile, target: Path, max_bytes: int) -> None:
    size = 0
    with await asyncio.to_thread(target.open, "xb") as out:
        while piece := await file.read(CHUNK_BYTES):
            size += len(piece)
            if size > max_bytes:
                raise HTTPException(413, f"the file has more than the {max_bytes:,} bytes that are allowed")
            await asyncio.to_thread(out.write, piece)
