"""Job types of the client's tests."""

from datetime import date, timedelta

from pydantic import BaseModel

from jobtape import Context, job


class Period(BaseModel):
    """A result that is a model."""

    first: date
    last: date


@job("add")
def add(x: int, y: int = 0) -> int:
    """Return the sum."""
    return x + y


@job("period.of")
async def period(first: date, days: int) -> Period:
    """Return the period of ``days`` days that begins with ``first``."""
    return Period(first=first, last=first + timedelta(days=days - 1))


@job("boom")
def boom(text: str) -> None:
    """Fail with ``text``."""
    raise ValueError(text)


@job("steps")
async def steps(ctx: Context, n: int) -> int:
    """Report the progress ``n`` times."""
    for step in range(n):
        ctx.progress(step / n, f"step {step}")
    return n
