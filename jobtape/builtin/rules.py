"""``jobtape.pause``, ``jobtape.limit`` and ``jobtape.schedule``: rules, whose jobs are never run."""

from jobtape.jobs import JobType
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.queueing.gates import Limit
from jobtape.schemas.rules.rules import LIMIT, PAUSE, SCHEDULE, Pause
from jobtape.schemas.rules.schedule import Schedule


def _pause(rule: Pause) -> None:
    """Start no more jobs of a queue or a job type until this job is cancelled."""


def _limit(rule: Limit) -> None:
    """Give a limit other values until this job is cancelled."""


def _schedule(rule: Schedule) -> None:
    """Submit a job at each tick until this job is cancelled."""


pause: JobType[None] = JobType(_pause, PAUSE, queue=BUILTIN_QUEUE, rule=True)
limit: JobType[None] = JobType(_limit, LIMIT, queue=BUILTIN_QUEUE, rule=True)
schedule: JobType[None] = JobType(_schedule, SCHEDULE, queue=BUILTIN_QUEUE, rule=True)
