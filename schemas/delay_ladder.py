"""Delays without a plugin: a ladder of exchanges and queues that a message walks down.

Level *k* has a queue that holds a message for ``2**k`` steps and then dead-letters it to the next level's exchange. A
delay is written in binary into the routing key, ``delay.<bits, most significant first>.run.<queue>``: where a bit is 1
the message goes through that level's queue, where it is 0 it goes straight on. Below level 0 it is due, and reaches
its work queue. Nothing is held in a worker, and the broker keeps it all.

The levels' queues never refuse and never drop: at-least-once dead-lettering, no length limit. What is due for a work
queue that does not exist goes to ``unroutable``: otherwise a few such messages would stop the whole ladder.
"""

import math
from typing import Final

STEP: Final = 0.1
"""Seconds of one step, which is the precision of a delay; it is rounded up, so nothing is early."""
LEVELS: Final = 25
LONGEST: Final = 30 * 86_400.0
"""Seconds; 25 levels could hold 38 days."""


def longest_delay(levels: int = LEVELS) -> float:
    """Seconds that a job may be delayed with so many levels."""
    return min(LONGEST, ((1 << levels) - 1) * STEP)


def delay_key(seconds: float, queue: str, levels: int = LEVELS) -> str:
    """The routing key that brings a message to ``queue`` after ``seconds`` (0 to what the levels can hold).

    Raises ValueError beyond that.
    """
    longest = ((1 << levels) - 1) * STEP
    if not seconds <= longest:  # said this way it refuses what is no number, too
        raise ValueError(f"a delay of {seconds:g} s is longer than the {longest:.1f} s of the ladder")
    # A whole number of milliseconds first: 0.3 s are three steps, though 0.3 / 0.1 is a little more than 3.
    steps = math.ceil(round(max(0.0, seconds) * 1000, 3) / (STEP * 1000))
    bits = ".".join(f"{steps:0{levels}b}")
    return f"delay.{bits}.run.{queue}"


def entry_pattern(levels: int = LEVELS) -> str:
    """What matches the keys of a ladder of so many levels; exact, so that two ladders never take the same message."""
    return ".".join(["delay", *["*"] * levels, "run", "*"])


def level_pattern(level: int, bit: int, levels: int = LEVELS) -> str:
    """What matches the keys whose bit of ``level`` is ``bit``; exact in the number of words."""
    above, below = levels - 1 - level, level
    return ".".join(["delay", *["*"] * above, str(bit), *["*"] * below, "run", "*"])


def due_pattern(queue: str, levels: int = LEVELS) -> str:
    """What matches the keys for ``queue`` once they are below the lowest level."""
    return ".".join(["delay", *["*"] * levels, "run", queue])


def held_for(level: int) -> int:
    """Milliseconds that the queue of ``level`` holds a message."""
    return int(STEP * 1000) << level
