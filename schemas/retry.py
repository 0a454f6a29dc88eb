"""When a failed attempt is followed by another, and how much later: decided here, carried out elsewhere."""

from dataclasses import dataclass
from typing import Final, Literal

from jobtape.schemas.ladder import LONGEST

Wish = Literal["policy", "never"] | float
"""What an attempt's failure says of the next one: as the policy has it, none, or after so many seconds."""

NEVER: Final = "never"
POLICY: Final = "policy"


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after ``delay`` seconds or as the policy has it.

    It counts as an attempt, so it ends with ``max_attempts`` too.
    """

    def __init__(self, delay: float | None = None, message: str = "the handler asked for another attempt") -> None:
        super().__init__(message)
        if delay is not None and not 0 <= delay <= LONGEST:
            raise ValueError(f"a retry can be delayed by 0 to {LONGEST:g} s, not {delay!r}")
        self.delay = delay


class Fail(Exception):
    """Raised by a handler: this job cannot be done, do not try again."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon. Times in seconds.

    The n-th failure is followed by a pause of ``first * factor ** (n - 1)``, at most ``longest``, less up to the
    fraction ``jitter`` of it, so that what failed together does not come again together. ``on``: the exceptions worth
    another attempt; a time-out is one of them as ``TimeoutError``. Raises ValueError for what makes no sense.
    """

    max_attempts: int = 1
    first: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: float = 0.25
    on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 1000:
            raise ValueError(f"max_attempts is 1 to 1000, not {self.max_attempts!r}")
        if not (0 <= self.first <= self.longest <= LONGEST and 1 <= self.factor <= 100 and 0 <= self.jitter <= 1):
            raise ValueError(
                "a retry policy needs 0 <= first <= longest <= 30 days, 1 <= factor <= 100 and 0 <= jitter <= 1"
            )

    def wish(self, error: BaseException) -> Wish:
        """What the exception of a failed attempt means for the next one."""
        match error:
            case Fail():
                return NEVER
            case Retry(delay=delay):
                return POLICY if delay is None else delay
        return POLICY if isinstance(error, self.on) else NEVER


def next_delay(policy: RetryPolicy, *, attempt: int, max_attempts: int, wish: Wish, chance: float) -> float | None:
    """Seconds until the attempt after ``attempt``, which failed; None when there is none.

    ``chance``: from 0 to 1, spreads the pause over the jitter.
    """
    if wish == NEVER or attempt >= max_attempts:
        return None
    if isinstance(wish, float | int):
        return float(wish)
    try:
        pause = policy.first * policy.factor ** (attempt - 1)
    except OverflowError:
        pause = policy.longest
    return min(pause, policy.longest) * (1 - policy.jitter * chance)
