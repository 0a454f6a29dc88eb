"""The first service takes orders. It knows nothing about who uses them."""

from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel

import jobtape
from jobtape import job


class Order(BaseModel):
    """An accepted order, and its price in cents."""

    article: str
    pieces: int
    cents: int


@job("order.place", queue="orders")
def place_order(article: str, pieces: int) -> Order:
    """Reserve the articles and compute the price."""
    return Order(article=article, pieces=pieces, cents=pieces * 950)


app = FastAPI(title="Orders", lifespan=jobtape.lifespan)


@app.post("/orders", status_code=202)
async def order(article: str, pieces: Annotated[int, Query(ge=1, le=100)]) -> dict[str, str]:
    """Accept an order."""
    return {"order": (await place_order.submit(article=article, pieces=pieces)).id}
