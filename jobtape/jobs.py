"""How a user names a handler: the ``@job`` decorator, and ``await add.submit(x=1, y=2)`` on what it returns."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, overload

from typing_extensions import TypeVar

from jobtape import running
from jobtape.schemas import context
from jobtape.schemas.job import Job
from jobtape.schemas.job_types import job_type as jobtype
from jobtape.schemas.job_types.payload_versions import PayloadUpcaster
from jobtape.schemas.retry import RetryPolicy

R = TypeVar("R", default=Any)
"""What a handler returns."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said of one submission besides its payload; None leaves it to the job type. Times in seconds."""

    queue: str | None = None
    timeout: float | None = None
    delay: float | None = None
    run_at: datetime | None = None
    max_attempts: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None
    """Its final event is also published with the routing key ``reply.<reply_to>``."""
    idempotency_key: str | None = None
    """The same submission under the same key is one job, however often it is made; needs the database."""


class JobType(jobtype.JobTypeSpec, Generic[R]):
    """A job type that can be submitted from an application that runs under ``jobtape.lifespan``, from a worker's
    handlers, and by ``jobtape.Client``. ``R`` is what its handler returns.
    """

    async def submit(self, *args: Any, **kwargs: Any) -> Job:
        """Publish a job with these arguments of the handler; returns when the broker has it safely.

        From any thread and event loop of a process in which an application runs under ``jobtape.lifespan``, and from a
        worker's handlers. Raises PayloadInvalid before anything is published, BrokerUnavailable when no confirm came in
        time, TapeMissing when there is no tape, and JobtapeError, and nothing was submitted, where nothing runs.
        """
        return await self.submit_with(Options(), *args, **kwargs)

    async def submit_with(self, options: Options, /, *args: Any, **kwargs: Any) -> Job:
        """``submit`` with a queue, time-out, labels or correlation id for this one job."""
        installation = running.installation_for(self.name)
        return await installation.submit(self.name, self.payload_to_send(*args, **kwargs), _keywords(options))

    def submit_sync(self, *args: Any, **kwargs: Any) -> Job:
        """``submit`` for code that cannot await, such as ``def`` endpoints and ``def`` handlers: it blocks the thread.

        Raises as ``submit`` does, and JobtapeError on the event loop that has the connection, which it would block.
        """
        return self.submit_sync_with(Options(), *args, **kwargs)

    def submit_sync_with(self, options: Options, /, *args: Any, **kwargs: Any) -> Job:
        """``submit_with`` for code that cannot await, as ``submit_sync``."""
        installation = running.installation_for(self.name)
        return installation.submit_sync(self.name, self.payload_to_send(*args, **kwargs), _keywords(options))


def _keywords(options: Options) -> dict[str, Any]:
    """What ``Producer.submit`` takes. A job that a handler submits carries on the conversation of the handler's job.

    Not under an idempotency key: submitted again elsewhere, it would be another submission.
    """
    within = None if options.idempotency_key is not None else context.current.get()
    return {
        "queue": options.queue,
        "timeout": options.timeout,
        "delay": options.delay,
        "run_at": options.run_at,
        "max_attempts": options.max_attempts,
        "labels": dict(options.labels),
        "correlation_id": options.correlation_id or (within and within.correlation_id),
        "reply_to": options.reply_to,
        "idempotency_key": options.idempotency_key,
        "causation_id": within and within.event_id,
    }


class _Decorator(Protocol):
    """An ``async def`` returns what its coroutine does."""

    @overload
    def __call__(self, function: Callable[..., Coroutine[Any, Any, R]]) -> JobType[R]: ...
    @overload
    def __call__(self, function: Callable[..., R]) -> JobType[R]: ...


def job(
    name: str,
    *,
    queue: str = jobtype.DEFAULT_QUEUE,
    timeout: float = jobtype.DEFAULT_TIMEOUT,
    retry: RetryPolicy | None = None,
    isolate: bool = False,
    memory: int | None = None,
    concurrency: int | None = None,
    version: int = 1,
    upcasters: Mapping[int, PayloadUpcaster] | None = None,
) -> _Decorator:
    """Make a function a job type: ``async def`` runs on a loop, ``def`` in a thread, and either in a process of its own
    with ``isolate``, where it can be killed and be given at most ``memory`` bytes.

    ``timeout`` is in seconds; ``queue`` names the work queue; ``retry`` says how often and how soon a failed attempt is
    followed by another (default: never); ``concurrency`` is how many of them one worker runs at once. When the payload
    changes, ``version`` goes up, and ``upcasters={1: lift}`` makes payloads of version 1, which may still be waiting or
    be redriven, ones of version 2: ``lift`` takes the payload and returns the new one, from nothing else. Raises
    JobTypeInvalid where the decorated function stands, with what to change.
    """

    def decorate(function: Callable[..., Any]) -> JobType[Any]:
        return JobType(
            function,
            name,
            queue=queue,
            timeout=timeout,
            retry=retry,
            isolate=isolate,
            memory=memory,
            concurrency=concurrency,
            version=version,
            upcasters=upcasters,
        )

    return decorate
