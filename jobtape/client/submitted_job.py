"""What the handles of both clients have in common."""

from dataclasses import dataclass
from typing import Any, Generic

from jobtape.client.errors import JobNotSucceeded
from jobtape.jobs import JobType, R
from jobtape.schemas.job import Job, JobState

PATIENCE = 60.0
"""Default in seconds for waiting for a job's end."""


@dataclass(frozen=True, slots=True)
class SubmittedJob(Generic[R]):
    """A job that was submitted.

    ``job``: the job in the answer to the submission. ``job_type``: converts its result; None keeps JSON.
    """

    job: Job
    job_type: JobType[R] | None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    def read(self, job: Job) -> R:
        """Return the result of a job that has ended.

        Raises JobNotSucceeded, and ResultInvalid when the result does not fit this program's version of the job type.
        """
        if job.state is not JobState.SUCCEEDED:
            raise JobNotSucceeded(job)
        result: Any = job.result if self.job_type is None else self.job_type.read_result(job.result)
        return result  # type: ignore[no-any-return]  # read_result returns R
