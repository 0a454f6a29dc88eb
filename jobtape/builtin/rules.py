"""``jobtape.pause`` and ``jobtape.limit``: rules, whose jobs are never run."""

from jobtape.jobs import JobType
from jobtape.schemas.gates import Limit
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.rules import LIMIT, PAUSE, Pause


def _pause(rule: Pause) -> None:
    """Let no job of a queue, or of a job type, begin until this job is cancelled."""


def _limit(rule: Limit) -> None:
    """Give a limit other values until this job is cancelled."""


pause: JobType[None] = JobType(_pause, PAUSE, queue=BUILTIN_QUEUE, rule=True)
limit: JobType[None] = JobType(_limit, LIMIT, queue=BUILTIN_QUEUE, rule=True)
