"""The trace context of a job whose trace began with its submission and is not sampled: it follows from the job's id."""

from typing import Final

UNSAMPLED: Final = "unsampled"
"""Stands for this context until the job has an id."""


def unsampled_context(job_id: str) -> str:
    """Return the context, as a W3C ``traceparent``. No span has its ids."""
    digits = job_id.replace("-", "")[:-1] + "1"  # since W3C allows no id of zeros
    return f"00-{digits}-{digits[16:]}-00"
