"""Sends a mail after the response, which does not wait for the mail server."""

from fastapi import FastAPI

import jobtape
from examples.mail import Address, send_email
from jobtape import JobTasks

app = FastAPI(title="Sign up", lifespan=jobtape.lifespan)


@app.post("/signup", status_code=202)
async def signup(to: Address, jobs: JobTasks) -> dict[str, str]:
    """Welcome a user. The job is on the broker before the response is sent; a worker sends the mail."""
    return {"mail": jobs.add(send_email, to=to, subject="Welcome", text="Good that you are here.")}
