"""What the producer allows: sizes in bytes, times in seconds. ``Settings.limits`` makes them."""

from dataclasses import dataclass
from typing import Final

ENVELOPE: Final = 128 * 1024
"""Room in a body beside the payload: 32 labels of the greatest length, with every character escaped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Each is the setting of its name, except ``longest_timeout``: see ``schemas.timeouts.longest_timeout``."""

    max_payload: int
    max_batch: int
    max_batch_bytes: int
    publish_timeout: float
    read_timeout: float
    longest_timeout: float
    idempotency_retention: float
    idempotency_lease: float
    max_listeners: int
    max_wait: int
    keepalive_interval: float
    send_timeout: float

    @property
    def max_body(self) -> int:
        """The largest body of a single submission."""
        return self.max_payload + ENVELOPE

    @property
    def key_lease(self) -> float:
        """For how long a submission under an idempotency key has the key to itself: longer than a publish takes."""
        return max(self.idempotency_lease, 2 * self.publish_timeout)
