"""What the producer allows: sizes in bytes, times in seconds."""

from dataclasses import dataclass
from typing import Final

from jobtape.schemas.delay_ladder import LONGEST

MEBIBYTE: Final = 1024 * 1024
ENVELOPE: Final = 128 * 1024
"""Room in a body for what stands beside the payload: 32 labels at their longest, with every character escaped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_payload`` counts the payload's bytes as JSON; ``longest_timeout`` is the most that a job may
    ask for (``schemas.timeouts.longest_timeout``), ``longest_delay`` how far ahead it may be scheduled."""

    max_payload: int = MEBIBYTE
    max_batch: int = 10_000
    max_batch_bytes: int = 64 * MEBIBYTE
    publish_timeout: float = 10.0
    read_timeout: float = 3.0
    longest_timeout: float = 865.0
    longest_delay: float = LONGEST
    idempotency_retention: float = 86_400.0
    idempotency_lease: float = 30.0
    max_listeners: int = 2000
    max_wait: int = 60
    keep_alive: float = 15.0
    stall: float = 30.0

    @property
    def max_body(self) -> int:
        """The largest body of a single submission."""
        return self.max_payload + ENVELOPE

    @property
    def key_lease(self) -> float:
        """How long whoever submits under an idempotency key has it to themselves: longer than a publish takes."""
        return max(self.idempotency_lease, 2 * self.publish_timeout)
