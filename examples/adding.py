"""The smallest job type."""

from jobtape import job


@job("add")
def add(x: int, y: int) -> int:
    """Return the sum of two integers."""
    return x + y
