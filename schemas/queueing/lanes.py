"""Lanes: the queues of one queue's jobs of different priority.

The lanes ``high`` and ``low`` of the queue ``orders`` are the queues ``orders.high`` and ``orders.low``; the lane
``normal`` is ``orders`` itself. So a job's lane is part of its queue's name, and whatever places, counts, rescues or
pauses work by queue does so by lane. A queue has lanes if one of its job types names a lane.
"""

from collections.abc import Collection, Iterable
from typing import Final, Literal, Protocol

Lane = Literal["high", "normal", "low"]
LANES: Final[tuple[Lane, ...]] = ("high", "normal", "low")
"""The one that is served first comes first."""
WEIGHTS: Final[dict[Lane, int]] = {"high": 6, "normal": 3, "low": 1}
"""How many jobs of each lane a worker begins of ten, while jobs of all lanes wait."""


class QueuedType(Protocol):
    """A job type, as this module uses it."""

    @property
    def queue(self) -> str:
        """Its queue."""

    @property
    def lane(self) -> Lane | None:
        """The lane of its jobs; None if it names none, which is the normal one."""


def lane_queue(queue: str, lane: Lane) -> str:
    """Return the queue of a lane of ``queue``."""
    return queue if lane == "normal" else f"{queue}.{lane}"


def base_of(queue: str) -> str:
    """Return the queue that ``queue`` is a lane of."""
    return queue.partition(".")[0]


def lane_of(queue: str) -> Lane:
    """Return which lane ``queue`` is."""
    end = queue.partition(".")[2]
    return "high" if end == "high" else "low" if end == "low" else "normal"


def lanes_of(queue: str) -> tuple[str, ...]:
    """Return all lanes of a queue; of a lane only itself."""
    return (queue,) if "." in queue else tuple(lane_queue(queue, lane) for lane in LANES)


def queues_with_lanes(job_types: Iterable[QueuedType]) -> frozenset[str]:
    """Return the queues that have lanes: those of which a job type names one."""
    return frozenset(job_type.queue for job_type in job_types if job_type.lane is not None)


def queues_of(job_types: Collection[QueuedType], only: Collection[str] = ()) -> list[str]:
    """Return the queues of the job types, with all lanes of those that have lanes. ``only``: the queues to look at,
    whether or not a job type has them; by default all.
    """
    laned = queues_with_lanes(job_types)
    queues = only or {job_type.queue for job_type in job_types}
    return sorted({each for queue in queues for each in (lanes_of(queue) if queue in laned else (queue,))})
