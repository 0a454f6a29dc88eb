"""The size of fault tests: JOBTAPE_TEST_SCALE=10 makes them ten times larger."""

import os

SCALE = float(os.environ.get("JOBTAPE_TEST_SCALE", "1"))


def scaled(n: int) -> int:
    """Return ``n``, multiplied by JOBTAPE_TEST_SCALE."""
    return max(1, round(n * SCALE))
