"""Job types of the client's tests."""

from datetime import date, timedelta
from typing import Any

from pydantic import BaseModel

from jobtape import Context, Signal, job, step


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
    for number in range(n):
        ctx.progress(number / n, f"step {number}")
    return n


@job("ask")
async def ask(ctx: Context, x: int) -> Any:
    """Add, wait for the signal `approved`, and go on with both."""
    return ctx.then(answer, {"sum": step(add, x, 1)}, wait=Signal("approved"))


@job("answer")
async def answer(results: dict[str, int], signal: dict[str, Any] | None) -> str:
    """Return the sum and who approved it."""
    return f"{results['sum']} by {'nobody' if signal is None else signal['by']}"
