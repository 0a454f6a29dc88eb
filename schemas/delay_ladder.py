"""Delays without a plugin: a ladder of exchanges and queues, one level for each bit of the delay.

Level *k* has a queue that holds a message for ``2**k`` steps and then dead-letters it to the next lower level's
exchange. The routing key contains the delay in binary, ``delay.<bits, most significant first>.run.<queue>``: where a
bit is 1 the message passes that level's queue, where it is 0 it goes directly to the next level. Below level 0 it is
due and reaches its work queue. So delayed jobs are in the broker only, and workers hold none.

The queues of the levels lose nothing: they have at-least-once dead-lettering and no length limit. Due work whose queue
does not exist goes to ``unroutable``; otherwise a few such messages would block the whole ladder.
"""

import math
from typing import Final

STEP: Final = 0.1
"""Seconds of one step. Delays are rounded up to steps, so no job is early."""
LEVELS: Final = 25
LONGEST: Final = 30 * 86_400.0
"""The longest delay in seconds; 25 levels could hold 38 days."""


def longest_delay(levels: int = LEVELS) -> float:
    """The longest delay, in seconds, with this number of levels."""
    return min(LONGEST, ((1 << levels) - 1) * STEP)


def delay_key(seconds: float, queue: str, levels: int = LEVELS) -> str:
    """The routing key that brings a message to ``queue`` after ``seconds``.

    Raises ValueError for more than the levels can hold.
    """
    longest = ((1 << levels) - 1) * STEP
    if not seconds <= longest:  # so written it refuses NaN too
        raise ValueError(f"a delay of {seconds:g} s is longer than the {longest:.1f} s of the ladder")
    # Rounds to milliseconds first: 0.3 s are three steps, though 0.3 / 0.1 is a little more than 3.
    steps = math.ceil(round(max(0.0, seconds) * 1000, 3) / (STEP * 1000))
    bits = ".".join(f"{steps:0{levels}b}")
    return f"delay.{bits}.run.{queue}"


def entry_pattern(levels: int = LEVELS) -> str:
    """The pattern for keys of this number of levels and no other, so that two ladders never take the same message."""
    return ".".join(["delay", *["*"] * levels, "run", "*"])


def level_pattern(level: int, bit: int, levels: int = LEVELS) -> str:
    """The pattern for keys whose bit of ``level`` is ``bit``."""
    above, below = levels - 1 - level, level
    return ".".join(["delay", *["*"] * above, str(bit), *["*"] * below, "run", "*"])


def due_pattern(queue: str, levels: int = LEVELS) -> str:
    """The pattern for keys of due work for ``queue``."""
    return ".".join(["delay", *["*"] * levels, "run", queue])


def hold_time(level: int) -> int:
    """Milliseconds that the queue of ``level`` holds a message."""
    return int(STEP * 1000) << level
