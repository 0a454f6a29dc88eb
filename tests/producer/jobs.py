"""Job types of the producer's tests."""

from pydantic import BaseModel, Field

from jobtape import job


class Order(BaseModel, extra="forbid"):
    """A payload that is a model."""

    article: str = Field(min_length=1)
    pieces: list[int] = Field(default_factory=list)


@job("add")
def add(x: int, y: int = 0) -> int:
    """Return the sum."""
    return x + y


@job("order.place", queue="orders", timeout=30)
async def place(order: Order) -> str:
    """Place an order; its queue is ``orders``."""
    return order.article


@job("keep")
def keep(data: list[object]) -> None:
    """Take any JSON array."""
