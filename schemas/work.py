"""Messages on a work queue: the events that place a job's work, and which attempt and placement they are for."""

from jobtape.schemas.events import Requeued, Retrying, Submitted

WorkEvent = Submitted | Retrying | Requeued


def attempt_of(event: WorkEvent) -> int:
    """The attempt that a message on a work queue is for: a ``retrying`` orders the one behind that which failed."""
    return event.data.attempt + 1 if isinstance(event, Retrying) else event.data.attempt


def placement_of(event: WorkEvent) -> int:
    """Which of its run's placements a message on a work queue is, counted from 1."""
    return event.data.n if isinstance(event, Requeued) else 1
