"""The size of fault tests: JOBTAPE_TEST_SCALE=10 makes them ten times larger, and lets each run on both databases."""

import os

import pytest

SCALE = float(os.environ.get("JOBTAPE_TEST_SCALE", "1"))


def scaled(n: int) -> int:
    """Return ``n``, multiplied by JOBTAPE_TEST_SCALE."""
    return max(1, round(n * SCALE))


def on_database(kind: str) -> pytest.MarkDecorator:
    """Run a test whose fault is not in the database on one kind, ``sqlite`` or ``postgresql``, and at a larger scale on
    both.
    """
    return pytest.mark.parametrize("database_url", [kind] if SCALE <= 1 else ["sqlite", "postgresql"], indirect=True)
