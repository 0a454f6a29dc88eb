"""What the handlers of a worker submit with: a connection on the worker's loop, made by the first submission."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jobtape import running
from jobtape.jobs import JobType
from jobtape.producer.service.submitter import Submitter
from jobtape.schemas.job import Job
from jobtape.settings import Settings


@asynccontextmanager
async def submissions(settings: Settings, job_types: Mapping[str, JobType], name: str) -> AsyncIterator[None]:
    """While this is entered, handlers in this process may submit jobs of ``job_types``. ``name``: the worker's."""
    submitter = OnFirstUse(settings, job_types, f"worker {name} (submitting)")
    installation = running.OnLoop(settings.installation, submitter, start_limit=settings.publish_timeout)
    running.enter(installation)
    try:
        yield
    finally:
        running.leave(installation)
        await submitter.close()


class OnFirstUse:
    """A ``Submitter`` that connects when it is first asked for something: most handlers submit nothing."""

    def __init__(self, settings: Settings, job_types: Mapping[str, JobType], name: str) -> None:
        self.job_types = job_types
        self._submitter = Submitter(settings.rabbitmq_url, settings.topology, job_types, settings.limits, name=name)
        self._started = False

    async def submit(self, type: str, payload: dict[str, Any], **options: Any) -> Job:  # noqa: A002
        """As ``Submitter.submit``."""
        if not self._started:
            self._started = True
            await self._submitter.start()
        return await self._submitter.submit(type, payload, **options)

    async def close(self) -> None:
        """End the connection, if there is one."""
        await self._submitter.close()
