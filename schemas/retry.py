"""When a failed attempt is followed by another, and how much later: decided here, carried out elsewhere."""

from dataclasses import dataclass
from typing import Final, Literal

from jobtape.schemas.delay_ladder import LONGEST

Wish = Literal["policy", "never"] | float
"""What an attempt's failure says of the next one: as the policy has it, none, or after so many seconds."""

NEVER: Final = "never"
POLICY: Final = "policy"
MOST_ATTEMPTS: Final = 1000


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after ``delay`` seconds or as the policy has it.

    It counts as an attempt, so it ends with ``max_attempts`` too.
    """

    def __init__(self, delay: float | None = None, message: str = "the handler asked for another attempt") -> None:
        super().__init__(message)
        if delay is not None and not (_is_number(delay) and 0 <= delay <= LONGEST):
            raise ValueError(
                f"a retry can be delayed by 0 to {LONGEST:.0f} seconds, not {delay!r}: give a number, or none"
            )
        self.delay = delay


class Fail(Exception):
    """Raised by a handler: this job cannot be done, do not try again."""


class Crashed(Exception):
    """What a handler's process that ended under it counts as in ``RetryPolicy.on``; nobody raises it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon. Times in seconds.

    The n-th failure is followed by a pause of ``first * factor ** (n - 1)``, at most ``longest``, less up to the
    fraction ``jitter`` of it, so that what failed together does not come again together. ``on``: the exceptions worth
    another attempt, compared as an ``except`` clause compares; a time-out is one of them as ``TimeoutError``, a
    handler's process that ended under it as ``Crashed``. Raises ValueError for what makes no sense.
    """

    max_attempts: int = 1
    first: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: float = 0.25
    on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        if not (type(self.max_attempts) is int and 1 <= self.max_attempts <= MOST_ATTEMPTS):
            raise ValueError(f"max_attempts is a whole number from 1 to {MOST_ATTEMPTS}, not {self.max_attempts!r}")
        numbers = (self.first, self.factor, self.longest, self.jitter)
        if not (
            all(map(_is_number, numbers))
            and (0 <= self.first <= self.longest <= LONGEST and 1 <= self.factor <= 100 and 0 <= self.jitter <= 1)
        ):
            raise ValueError(
                "a retry policy needs 0 <= first <= longest <= 30 days (in seconds), 1 <= factor <= 100 and "
                f"0 <= jitter <= 1, not first={self.first!r}, longest={self.longest!r}, factor={self.factor!r}, "
                f"jitter={self.jitter!r}"
            )
        # Found out at a job's failure, it would be the worker that fails.
        if not (isinstance(self.on, tuple) and all(map(_is_exception, self.on))):
            raise ValueError(f"on is a tuple of exception classes, like (OSError, TimeoutError), not {self.on!r}")

    def wish(self, error: BaseException) -> Wish:
        """What the exception of a failed attempt means for the next one."""
        match error:
            case Fail():
                return NEVER
            case Retry(delay=delay):
                return POLICY if delay is None else delay
        # As an ``except`` clause compares: ``isinstance`` asks the classes, which are the users' and may do anything.
        return POLICY if any(type.__subclasscheck__(kind, type(error)) for kind in self.on) else NEVER


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
