"""A submitted job in the hands of who submitted it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from jobtape.client.errors import JobNotSucceeded
from jobtape.jobs import JobType, R
from jobtape.schemas.job import Job, JobState

if TYPE_CHECKING:
    from jobtape.client.client import Client

PATIENCE = 60.0
"""Seconds that one waits for a job's end, unless told otherwise."""


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


@dataclass(frozen=True, slots=True)
class Handle(SubmittedJob[R]):
    """What ``Client.submit`` returns."""

    client: "Client"

    async def result(self, timeout: float = PATIENCE) -> R:
        """What the handler returned, as its return annotation says. Raises JobNotSucceeded, NotInTime and ApiError."""
        return self.read(await self.wait(timeout))

    async def wait(self, timeout: float = PATIENCE) -> Job:
        """The job at its end, whichever it is. Raises NotInTime and ApiError."""
        return await self.client.wait(self.id, timeout=timeout)

    async def cancel(self) -> Job:
        """The job as it was when its end was asked for. Raises ApiError."""
        return await self.client.cancel(self.id)
