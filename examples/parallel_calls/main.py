"""Asks several services at the same time, one job for each, and chooses the best answer."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from uuid import UUID

import httpx
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

import jobtape
from jobtape import Client, Flow, RetryPolicy, item, job
from jobtape.client import NotInTime

SUPPLIERS = os.environ.get("JOBTAPE_EXAMPLE_SUPPLIERS", "http://127.0.0.1:8001/suppliers")


class Offer(BaseModel):
    """What a supplier asks for an article, in cents."""

    supplier: str
    cents: int


@cache
def http() -> httpx.AsyncClient:
    """Return the client that all jobs of this worker share."""
    return httpx.AsyncClient(timeout=5)


# Of all these jobs, only one that failed is tried again. While they wait, they need no thread.
@job("offer.ask", timeout=10, retry=RetryPolicy(max_attempts=5, first=0.1, on=(httpx.HTTPError,)))
async def ask(supplier: str, article: str) -> Offer:
    """Ask one supplier."""
    answer = await http().get(f"{SUPPLIERS}/{supplier}", params={"article": article})
    answer.raise_for_status()
    return Offer(supplier=supplier, cents=answer.json()["cents"])


@job("offer.choose")
def choose(offers: list[Offer]) -> Offer:
    """Return the cheapest offer."""
    return min(offers, key=lambda offer: offer.cents)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Client]]:
    """Submit jobs, and read them through the API of JOBTAPE_URL."""
    async with jobtape.lifespan(app), Client() as client:
        yield {"client": client}


app = FastAPI(title="Offers", lifespan=lifespan)


@app.post("/offers", status_code=202)
async def start(article: str) -> dict[str, str]:
    """Ask all suppliers."""
    flow = Flow("offers", given={"suppliers": ["north", "south", "west"]})
    offers = flow.map(ask, over=flow.input["suppliers"], supplier=item, article=article)
    flow.add(choose, offers=offers.result)
    return {"job": (await flow.submit()).id}


@app.get("/offers/{job_id}")
async def best(request: Request, job_id: UUID) -> Offer:
    """Wait for the best offer. 504: not all suppliers have answered within 20 s."""
    try:
        ended = await request.state.client.wait(str(job_id), timeout=20)
    except NotInTime:
        raise HTTPException(504, "the suppliers have not answered yet: ask again") from None
    if ended.state != "succeeded":
        raise HTTPException(502, "a supplier did not answer")
    return Offer.model_validate(ended.result["offer.choose"])


asked: Counter[str] = Counter()


@app.get("/suppliers/{name}")
async def supplier(name: str, article: str) -> dict[str, int]:
    """Stands for services of other people: the first call to one of them fails."""
    asked[name] += 1
    if name == "south" and asked[name] == 1:
        raise HTTPException(503, "try again later")
    return {"cents": {"north": 1200, "south": 950, "west": 990}[name]}
