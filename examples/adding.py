"""The smallest job type."""

from jobtape import job


@job("add")
def add(x: int, y: int) -> int:
    """The sum of two whole numbers."""
    return x + y
