"""Job types of Jobtape itself, for long work on the view and the tape.

They run beside a projector, which has the database. As jobs they have a status, progress and a history, and can be
cancelled.
"""

from jobtape.builtin.bulk import cancel, redrive
from jobtape.builtin.common import topology_of
from jobtape.builtin.rebuild import rebuild
from jobtape.builtin.replay import replay
from jobtape.builtin.rules import limit, pause, schedule
from jobtape.builtin.shadow import shadow
from jobtape.builtin.webhook import webhook
from jobtape.jobs import JobType

__all__ = ["job_types", "topology_of"]


def job_types() -> dict[str, JobType]:
    """Return all built-in job types by name."""
    return {each.name: each for each in (cancel, limit, pause, rebuild, redrive, replay, schedule, shadow, webhook)}
