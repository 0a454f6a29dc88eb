"""The job types that Jobtape brings along, for work on the view and the tape that takes long.

They run where a projector runs, which has the database, each in a process of its own. So they have what every job has:
a status, progress, a history, cancelling.
"""

from jobtape.builtin.common import topology_of
from jobtape.builtin.rebuild import rebuild
from jobtape.builtin.replay import replay
from jobtape.builtin.shadow import shadow
from jobtape.jobs import JobType

__all__ = ["job_types", "topology_of"]


def job_types() -> dict[str, JobType]:
    """All of them, by name."""
    return {each.name: each for each in (rebuild, replay, shadow)}
