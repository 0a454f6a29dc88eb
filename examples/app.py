"""An application of one's own with Jobtape in it: ``POST /thumbnails`` takes a picture and answers at once.

    JOBTAPE_JOBS=examples.jobs uvicorn examples.app:app
    curl -i -F file=@examples/data/rocket.jpg http://127.0.0.1:8000/thumbnails

The workers run beside it: ``jobtape up``, or ``jobtape worker`` and ``jobtape projector``, with the same environment.

What this replaces, with FastAPI's BackgroundTasks:

    @app.post("/thumbnails", status_code=202)
    async def upload(file: UploadFile, background_tasks: BackgroundTasks):
        name = await store(file)
        background_tasks.add_task(make_thumbnails, name)
        return {"file": name}

There the task lives in the memory of the web process alone. A restart or a crash loses it without a trace, a failure
is a line in the log, nobody can ask how far it is, and the work takes its time from the requests. Here the 202 is
given when the broker has the job safely; another process does the work, again if that process dies; and ``Location``
leads to its state, progress, error and result.
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
"""For the other fields and the boundaries of the form around the file."""
PREFIX = "/jobtape"


class Accepted(BaseModel):
    """The job's id (its state is at ``Location``), and under which name the file was stored."""

    job: str
    file: str


app = FastAPI(title="Thumbnails", lifespan=jobtape.lifespan)
app.mount(PREFIX, jobtape.create_app())


# Two limits, since a form is read to its end before this function begins: the framework's ends an upload that is too
# long while it comes in, whatever its Content-Length says; ``store`` has the last word on the file itself.
@app.post("/thumbnails", status_code=202, max_body_size=MAX_FILE_BYTES + ENVELOPE_BYTES)
async def upload(
    request: Request, response: Response, file: UploadFile, sizes: Annotated[list[Edge] | None, Form()] = None
) -> Accepted:
    """Store the picture and order its thumbnails. 413: too large. 503: the broker did not confirm in time."""
    name = await store(file, Settings().files)
    try:
        job = await thumbnail.submit(name, *([sizes] if sizes else []))
    except jobtape.PayloadInvalid as error:
        raise HTTPException(422, str(error)) from error
    except jobtape.BrokerUnavailable as error:
        # The file stays: a broker that did not answer in time may have the job all the same.
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    response.headers["Location"] = f"{request.scope.get('root_path', '')}{PREFIX}/jobs/{job.id}"
    return Accepted(job=job.id, file=name)


@app.get("/thumbnails/{job_id}/{name}")
async def download(job_id: UUID, name: Annotated[str, PathParameter(pattern=r"^\d{1,4}\.(jpg|png)$")]) -> FileResponse:
    """One finished thumbnail, under the name that the job's result gives it. 404: there is none."""
    path = Settings().files / "thumbnails" / str(job_id) / name
    if not await asyncio.to_thread(path.is_file):
        raise HTTPException(404, f"no thumbnail {name} of the job {job_id}")
    return FileResponse(path)


async def store(file: UploadFile, folder: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Copy an upload piece by piece into ``folder`` under a name of our own, and return that name.

    Of the sender's name only a harmless suffix is kept. Raises HTTPException 413, and then leaves nothing behind.
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
