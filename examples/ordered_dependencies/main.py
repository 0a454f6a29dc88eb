"""Adds tasks in a dependency and in the path operation, and runs them one after the other, in this order."""

from typing import Annotated

from fastapi import Depends, FastAPI

import jobtape
from examples.settings import Settings
from jobtape import Context, JobTasks, job


# All jobs with the same user run one after the other, on whichever worker.
@job("audit.write", ordering_key="user")
def write(ctx: Context, user: str, text: str) -> str:
    """Append a line to the log of audits. A second execution, after a crash, may write the line again."""
    path = Settings().files / "audit.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{user} {text}\n")
    return ctx.idempotency_key


app = FastAPI(title="Messages", lifespan=jobtape.lifespan)


async def current_user(user: str, jobs: JobTasks) -> str:
    """Return the user, and record the visit."""
    jobs.add(write, user=user, text="was here")
    return user


@app.post("/messages", status_code=202)
async def send(user: Annotated[str, Depends(current_user)], text: str, jobs: JobTasks) -> dict[str, str]:
    """Send a message. If this raises, neither line is written."""
    if text == "spam":
        raise ValueError("not sent")
    jobs.add(write, user=user, text=f"sent {text!r}")
    return {"last": jobs.add(write, user=user, text="left")}
