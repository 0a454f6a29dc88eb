"""Job types for the measurements of redrives and of a queue that goes missing."""

from jobtape import Context, job


@job("second-time")
def second_time(ctx: Context) -> str:
    """Fails in its first run."""
    if ctx.run == 1:
        raise ValueError("not yet")
    return f"run {ctx.run}"


@job("here")
def here() -> None:
    """No work, on the ordinary queue."""


@job("aside", queue="side")
def aside() -> None:
    """No work, on a queue of its own."""
