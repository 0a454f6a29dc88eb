"""How large the runs are: JOBTAPE_TEST_SCALE=10 gives the full figures."""

import os

SCALE = float(os.environ.get("JOBTAPE_TEST_SCALE", "1"))


def scaled(n: int) -> int:
    """``n`` in the ordinary suite."""
    return max(1, round(n * SCALE))
