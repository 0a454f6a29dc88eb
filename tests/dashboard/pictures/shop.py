"""The job types of the pictures: those of a small shop."""

import asyncio
from typing import Literal

from jobtape import Concurrency, Context, Cron, RetryPolicy, job


@job("report.build", queue="reports", timeout=120)
async def build_report(ctx: Context, year: int, pause: float = 0.1) -> dict[str, int]:
    """Build the report of a year, month by month."""
    for month in range(12):
        ctx.progress(month / 12, f"month {month + 1} of 12")
        await asyncio.sleep(pause)
    return {"year": year, "lines": 372}


@job("mail.send", queue="mail", retry=RetryPolicy(max_attempts=3, first=0.4, jitter=0.0, on=(ConnectionError,)))
async def send_mail(ctx: Context, to: str, subject: str = "Your order", refusals: int = 0) -> str:
    """Send a mail, and try again while the server refuses the connection."""
    await asyncio.sleep(0.12)
    if ctx.attempt <= refusals:
        raise ConnectionError(f"the mail server of {to.partition('@')[2]} refused the connection")
    return f"sent to {to}"


@job("payment.charge")
def charge(customer: int, amount: float, currency: Literal["EUR", "USD", "GBP"] = "EUR") -> dict[str, object]:
    """Charge a customer."""
    if amount <= 0:
        raise ValueError(f"the amount for customer {customer} is not positive: {amount}")
    return {"customer": customer, "charged": amount, "currency": currency}


@job("text.count", limits=[Concurrency(20)])
def count(text: str) -> int:
    """Count the characters of a text."""
    return len(text)


@job("stock.move", queue="reports", ordering_key="article")
async def move(article: str, pieces: int, pause: float = 0.1) -> int:
    """Move pieces of an article, one job after the other."""
    await asyncio.sleep(pause)
    return pieces


@job("stock.sweep", schedule=Cron("30 2 * * *", tz="Europe/Berlin"))
def sweep() -> None:
    """Compare the stock with the books, every night."""
