"""``JobTasks``: collects the jobs of a request, and submits them when the path operation has returned.

    @app.post("/signup")
    async def signup(to: str, jobs: JobTasks) -> dict[str, str]:
        return {"job": jobs.add(send_welcome, to=to)}

The counterpart of FastAPI's ``BackgroundTasks``. The jobs are submitted before the response is sent, so that a client
that gets the response can rely on them: when the broker does not confirm them, it gets 503.
"""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request

from jobtape.jobs import JobType
from jobtape.process import running
from jobtape.producer.producer import Producer
from jobtape.producer.service.ids import new_job_id
from jobtape.schemas.errors import JobtapeError, SubmissionInvalid
from jobtape.schemas.job import Order
from jobtape.schemas.submission import Options

log = logging.getLogger(__name__)

RETRY_AFTER: Final = 2
"""Seconds. A broker needs about that long to recover."""


class CollectedJobs:
    """The jobs of one request, in the order in which they were added."""

    def __init__(self) -> None:
        self._orders: list[tuple[running.LoopInstallation, str, Order]] = []

    def add(self, job_type: JobType[Any], /, *args: Any, **kwargs: Any) -> str:
        """Add a job with the handler's arguments, and return the id that it will have.

        Nothing is submitted if the path operation or a dependency raises. Raises what ``JobType.submit`` raises for
        wrong arguments, and JobtapeError when no application runs under ``jobtape.lifespan``.
        """
        return self.add_with(Options(), job_type, *args, **kwargs)

    def add_with(self, options: Options, job_type: JobType[Any], /, *args: Any, **kwargs: Any) -> str:
        """Add a job as ``add`` does, with ``options`` for this one job: all but ``idempotency_key``."""
        if options.idempotency_key is not None:
            message = "an idempotency key decides the job's id: use `await job_type.submit_with(options, ...)`"
            raise SubmissionInvalid(message, [{"loc": ("idempotency_key",), "msg": message}])
        installation = running.installation_for(job_type.name)
        if not isinstance(installation, running.LoopInstallation) or not isinstance(installation.submitter, Producer):
            raise JobtapeError("JobTasks is for applications under jobtape.lifespan: use `submit` in a handler")
        job_id = new_job_id()
        order = installation.submitter.order(job_type.submission(options, *args, **kwargs))
        self._orders.append((installation, job_id, order))
        return job_id

    async def submit(self) -> None:
        """Submit the jobs one after the other, each when the broker has confirmed the one before.

        Raises BrokerUnavailable, TapeMissing and JobtapeError. Then the first job of ``ids`` may have been recorded,
        and those after it were not submitted.
        """
        while self._orders:
            installation, job_id, order = self._orders[0]
            assert isinstance(installation.submitter, Producer)
            await installation.call(installation.submitter.submit_order, order, job_id)
            del self._orders[0]

    @property
    def ids(self) -> list[str]:
        """The ids of the jobs that are not submitted yet."""
        return [job_id for _, job_id, _ in self._orders]


async def collected_jobs(request: Request) -> AsyncIterator[CollectedJobs]:
    """Yield what collects the jobs of a request; afterwards submit them. Raises 503 when the broker confirms not all.

    Override it in tests (``app.dependency_overrides``).
    """
    jobs = CollectedJobs()
    yield jobs
    try:
        await jobs.submit()
    except JobtapeError as error:
        first, *rest = jobs.ids
        log.error(
            "%s %s is answered with 503: not all of its jobs were submitted: %s. The job %s may have been recorded "
            "(check with `jobtape status`); the %d jobs after it were not submitted",
            request.method,
            request.url.path,
            error,
            first,
            len(rest),
        )
        raise HTTPException(
            503, "the work of this request could not be submitted: try again", {"Retry-After": str(RETRY_AFTER)}
        ) from error


JobTasks = Annotated[CollectedJobs, Depends(collected_jobs, scope="function")]
"""The annotation of a parameter of path operations and dependencies, which get the same one within a request."""
