"""Handlers whose result depends on BENCH_BUG; each execution that is no shadow adds a line to BENCH_EXECUTIONS."""

import os

from jobtape import Context, job

BUG = os.environ.get("BENCH_BUG") == "1"


@job("double")
def double(ctx: Context, n: int) -> int:
    """Wrong for one in ten while there is the bug."""
    if not ctx.shadow:
        with open(os.environ["BENCH_EXECUTIONS"], "a") as lines:  # noqa: PTH123 - short lines are appended whole
            lines.write(f"{ctx.idempotency_key}\n")
    return 2 * n + (1 if BUG and n % 10 == 0 else 0)
