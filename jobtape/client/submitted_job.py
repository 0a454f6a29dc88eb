"""A submitted job in the hands of who submitted it."""

from dataclasses import dataclass
from typing import Any, Generic

from jobtape.client.errors import JobNotSucceeded
from jobtape.jobs import JobType, R
from jobtape.schemas.job import Job, JobState

PATIENCE = 60.0
"""Seconds that one waits for a job's end, by default."""


@dataclass(frozen=True, slots=True)
class SubmittedJob(Generic[R]):
    """``job``: as the submission was answered. ``job_type``: who reads its result; None leaves it as JSON has it."""

    job: Job
    job_type: JobType[R] | None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    def read(self, job: Job) -> R:
        """The result of the job once it has ended. Raises JobNotSucceeded, and ResultInvalid when it does not fit the
        job type as it is here.
        """
        if job.state is not JobState.SUCCEEDED:
            raise JobNotSucceeded(job)
        result: Any = job.result if self.job_type is None else self.job_type.read_result(job.result)
        return result  # type: ignore[no-any-return]  # R is what the job type reads
