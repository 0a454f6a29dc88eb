"""Lets the handlers of a worker submit jobs, over a connection that the first submission opens."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from jobtape import running
from jobtape.jobs import JobType
from jobtape.producer.service.submitter import Submitter
from jobtape.schemas.job import Job
from jobtape.schemas.submission import Submission
from jobtape.settings import Settings


@asynccontextmanager
async def submissions(settings: Settings, job_types: Mapping[str, JobType], name: str) -> AsyncIterator[None]:
    """Allow handlers in this process to submit jobs of ``job_types`` inside the block. ``name``: the worker's name."""
    submitter = OnFirstUse(settings, job_types, f"worker {name} (submitting)")
    installation = running.LoopInstallation(settings.installation, submitter, start_limit=settings.publish_timeout)
    running.register(installation)
    try:
        yield
    finally:
        running.unregister(installation)
        await submitter.close()


class OnFirstUse:
    """A ``Submitter`` that connects at the first submission, because most handlers submit nothing."""

    def __init__(self, settings: Settings, job_types: Mapping[str, JobType], name: str) -> None:
        self.job_types = job_types
        self._submitter = Submitter(settings.rabbitmq_url, settings.topology, job_types, settings.limits, name=name)
        self._started = False

    async def submit(self, submission: Submission, idempotency_key: str | None, causation_id: str | None) -> Job:
        """Submit a job as ``Submitter.submit`` does."""
        if not self._started:
            self._started = True
            await self._submitter.start()
        return await self._submitter.submit(submission, idempotency_key, causation_id)

    async def close(self) -> None:
        await self._submitter.close()
