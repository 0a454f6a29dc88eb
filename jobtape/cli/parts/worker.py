"""``jobtape worker``: runs one worker in this process."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from jobtape.cli import log_output as logs
from jobtape.cli.parts.lifeline import Lifeline
from jobtape.cli.parts.run import process_name, run_part
from jobtape.cli.parts.signals import end_now
from jobtape.cli.parts.start import configuring, job_types_of, settings_with, topology_of, unbuffered
from jobtape.consumer.worker.worker import Worker
from jobtape.jobs import JobType
from jobtape.process import running
from jobtape.producer.service.submission.order_check import recorder
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.schemas.job import Job
from jobtape.schemas.submission import Spawned, Submission
from jobtape.settings import Settings
from jobtape.telemetry import setup as telemetry


def run_worker(**options: str | None) -> None:
    """Run jobs until SIGTERM or SIGINT, and return when running jobs have ended or were returned to their queues.

    Raises CannotStart, and WorkerStuck when handlers that never end occupy all slots.
    """
    lifeline = Lifeline()
    settings = settings_with(**options)
    logs.configure("worker", settings.log_level, settings.log_format)
    unbuffered()
    with configuring():
        telemetry.start("worker")
    job_types = job_types_of(settings)
    made: list[Worker] = []

    def make() -> Worker:
        worker = Worker(
            settings.rabbitmq_url,
            topology_of(settings, job_types),
            job_types,
            concurrency=settings.concurrency,
            grace=settings.grace_period,
            max_result=settings.max_result,
            ack_timeout=settings.ack_timeout,
            unknown_type_timeout=settings.unknown_type_timeout,
            name=process_name(),
            modules=settings.jobs,
            record=recorder(job_types, settings.limits, settings.max_result),
        )
        made.append(worker)
        return worker

    try:
        asyncio.run(
            run_part("worker", make, settings, lifeline, lambda: submissions(settings, job_types, process_name()))
        )
    finally:
        telemetry.flush()
        if made and made[0].stuck_handlers:  # Python waits for its threads at exit, and these never end
            end_now(1 if sys.exc_info()[0] else 0)


@asynccontextmanager
async def submissions(settings: Settings, job_types: Mapping[str, JobType], name: str) -> AsyncIterator[None]:
    """Allow handlers in this process to submit jobs of ``job_types`` inside the block. ``name``: the worker's name."""
    submitter = _SubmitterOnFirstUse(settings, job_types, f"worker {name} (submitting)")
    installation = running.LoopInstallation(settings.installation, submitter, start_limit=settings.publish_timeout)
    running.register(installation)
    try:
        yield
    finally:
        running.unregister(installation)
        await submitter.close()


class _SubmitterOnFirstUse:
    """A ``Submitter`` that connects at the first submission, because most handlers submit nothing."""

    def __init__(self, settings: Settings, job_types: Mapping[str, JobType], name: str) -> None:
        self.job_types = job_types
        self._submitter = Submitter(settings.rabbitmq_url, settings.topology, job_types, settings.limits, name=name)
        self._started = False
        self.close = self._submitter.close

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job as ``Submitter.submit`` does."""
        if not self._started:
            self._started = True
            await self._submitter.start()
        return await self._submitter.submit(submission, idempotency_key, causation_id, spawned)
