"""Shows the progress of a task in a page, over a WebSocket that may break at any time."""

import asyncio
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import jobtape
from jobtape import Context, job


@job("video.convert", timeout=600)
async def convert(ctx: Context, seconds: int) -> str:
    """Convert a video, second by second."""
    for second in range(seconds):
        ctx.progress(second / seconds, f"{second} of {seconds} s")
        await asyncio.sleep(0.05)  # the work
    return f"a video of {seconds} s"


app = FastAPI(title="Videos", lifespan=jobtape.lifespan)
# The WebSocket is at /jobtape/ws. Whoever reaches it may read and change all jobs: see JOBTAPE_API_KEY.
app.mount("/jobtape", jobtape.create_app())


@app.post("/videos", status_code=202)
async def start(seconds: int) -> dict[str, str]:
    """Start to convert a video."""
    return {"job": (await convert.submit(seconds=seconds)).id}


# Last, because it answers all other paths.
app.mount("/", StaticFiles(directory=Path(__file__).parent, html=True))
