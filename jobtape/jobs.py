"""The ``@job`` decorator, which makes a handler a job type, and ``await add.submit(x=1, y=2)`` on that job type."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Protocol, overload

from typing_extensions import TypeVar

from jobtape.process import running
from jobtape.schemas.execution import context
from jobtape.schemas.execution.retry import RetryPolicy
from jobtape.schemas.job import Job
from jobtape.schemas.job_types import job_type as jobtype
from jobtape.schemas.job_types.batches import Batch
from jobtape.schemas.job_types.declared_gates import Concurrency, Debounce, OnFailure, Rate, Unique
from jobtape.schemas.job_types.payload_versions import PayloadUpcaster
from jobtape.schemas.job_types.schedules import Times
from jobtape.schemas.queueing.lanes import Lane
from jobtape.schemas.submission import Options, Submission, read_submission, submission_body

R = TypeVar("R", default=Any)
"""The type that a handler returns."""


class JobType(jobtype.JobTypeSpec, Generic[R]):
    """A job type; ``R`` is the type that its handler returns.

    Jobs can be submitted from an application that runs under ``jobtape.lifespan``, from a worker's handlers, and with
    ``jobtape.Client``.
    """

    async def submit(self, *args: Any, **kwargs: Any) -> Job:
        """Submit a job with the handler's arguments, and return it when the broker has confirmed it.

        Works in all threads and event loops of a process in which an application runs under ``jobtape.lifespan``, and
        in a worker's handlers. Raises PayloadInvalid before anything is published, BrokerUnavailable when no confirm
        came in time, TapeMissing when there is no tape, and JobtapeError, without submitting, in any other process.
        """
        return await self.submit_with(Options(), *args, **kwargs)

    async def submit_with(self, options: Options, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job as ``submit`` does, with ``options`` for this one job."""
        installation = running.installation_for(self.name)
        return await installation.submit(*self._submission(options, args, kwargs))

    def submit_sync(self, *args: Any, **kwargs: Any) -> Job:
        """Submit a job as ``submit`` does, and block the thread; for ``def`` endpoints and ``def`` handlers.

        Raises what ``submit`` raises, and JobtapeError on the event loop of the connection, which it would block.
        """
        return self.submit_sync_with(Options(), *args, **kwargs)

    def submit_sync_with(self, options: Options, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job with ``options`` and block the thread; see ``submit_sync``."""
        installation = running.installation_for(self.name)
        return installation.submit_sync(*self._submission(options, args, kwargs))

    def submission(self, options: Options, /, *args: Any, **kwargs: Any) -> Submission:
        """Return a submission with the handler's arguments. Raises PayloadInvalid and SubmissionInvalid."""
        return self._submission(options, args, kwargs)[0]

    async def submit_in(self, session: Any, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job in a transaction of your own database: it exists if and only if the transaction is committed.

        ``session``: an ``AsyncSession`` or ``AsyncConnection`` of SQLAlchemy, on SQLite or PostgreSQL, whose database
        has the table of ``jobtape.outbox_table``. Needs no broker: the row waits for a forwarder. Raises PayloadInvalid
        and SubmissionInvalid before anything is written, JobtapeError for another kind of session, and errors of the
        database.
        """
        return await self.submit_in_with(session, Options(), *args, **kwargs)

    async def submit_in_with(self, session: Any, options: Options, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job as ``submit_in`` does, with ``options`` for this one job. An idempotency key is refused."""
        job: Job = await _outbox().submit_in(session, self, self._submission(options, args, kwargs))
        return job

    def submit_in_sync(self, session: Any, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job as ``submit_in`` does, with a ``Session`` or ``Connection`` of SQLAlchemy."""
        return self.submit_in_sync_with(session, Options(), *args, **kwargs)

    def submit_in_sync_with(self, session: Any, options: Options, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job as ``submit_in_sync`` does, with ``options`` for this one job."""
        job: Job = _outbox().submit_in_sync(session, self, self._submission(options, args, kwargs))
        return job

    def step(self, *args: Any, **kwargs: Any) -> "Step":
        """Return a call of this job type with the handler's arguments, for ``chain`` and ``ctx.then``."""
        return Step(self, args, kwargs, Options())

    def step_with(self, options: Options, /, *args: Any, **kwargs: Any) -> "Step":
        """Return a step as ``step`` does, with the options that ``Flow.add`` takes."""
        return Step(self, args, kwargs, options)

    def _submission(
        self, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Submission, str | None, str | None]:
        """Return the submission, its idempotency key and its causation id.

        A job that a handler submits gets the correlation id of the handler's job. With an idempotency key it does not,
        because the same submission from elsewhere would differ.
        """
        body = submission_body(self.name, self.payload_to_send(*args, **kwargs), options)
        within = None if options.idempotency_key is not None else context.current.get()
        body["correlation_id"] = options.correlation_id or (None if within is None else within.correlation_id)
        return read_submission(body, Submission), options.idempotency_key, None if within is None else within.event_id


@dataclass(frozen=True, slots=True)
class Step:
    """A call of a job type, for ``chain`` and ``ctx.then``. ``JobType.step``, ``step`` and ``step_with`` make it."""

    job_type: JobType[Any] | str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Options


def _outbox() -> Any:
    # By name: this module is also the client's, which needs no database.
    return import_module("jobtape.outbox.submitting")


class _Decorator(Protocol):
    """The type of ``@job(...)``; for an ``async def``, ``R`` is what the coroutine returns."""

    @overload
    def __call__(self, function: Callable[..., Coroutine[Any, Any, R]]) -> JobType[R]: ...
    @overload
    def __call__(self, function: Callable[..., R]) -> JobType[R]: ...


def job(
    name: str,
    *,
    queue: str = jobtype.DEFAULT_QUEUE,
    lane: Lane | None = None,
    timeout: float = jobtype.DEFAULT_TIMEOUT,
    retry: RetryPolicy | None = None,
    isolate: bool = False,
    memory: int | None = None,
    concurrency: int | None = None,
    batch: Batch | None = None,
    ordering_key: str | None = None,
    on_failure: OnFailure = "continue",
    limits: Sequence[Concurrency | Rate] = (),
    unique: Unique | None = None,
    debounce: Debounce | None = None,
    take_turns: str | None = None,
    schedule: Times | Sequence[Times] = (),
    version: int = 1,
    upcasters: Mapping[int, PayloadUpcaster] | None = None,
) -> _Decorator:
    """Make a function the handler of a job type.

    An ``async def`` runs on the worker's event loop, a ``def`` in a thread. Raises JobTypeInvalid at the decorated
    function, with what to change.

    :param name: The job type: the name that clients send.
    :param queue: The work queue of its jobs.
    :param lane: ``"high"``, ``"normal"`` or ``"low"``: its jobs begin before or after others of the queue, by weights.
        A queue of which one job type names a lane has three queues on the broker.
    :param timeout: Seconds that an attempt may run. Then it fails with the reason ``timeout``.
    :param retry: How often and when a failed attempt is retried. Default: never.
    :param isolate: Run the handler, ``async def`` or ``def``, in a process of its own, which can be killed.
    :param memory: Bytes that the process of an isolated handler may allocate. Default: no limit.
    :param concurrency: How many jobs of this type one worker runs at the same time. Default: no limit but the worker's;
        with ``isolate``, as many as the machine has processors, at least 4.
    :param batch: ``Batch(100, within=0.5)``: the handler gets up to 100 jobs in one call, those that come within half a
        second. Each of its parameters is a list with a value for each job, and so is its result.
    :param ordering_key: A field of the payload (``"customer"``, ``"order.customer"``) or a label (``"label:tenant"``).
        Jobs with the same value run one after the other, in the order of their submissions on the tape.
    :param on_failure: What a failed job does with its ordering key: ``"continue"`` lets the next one run, ``"hold"``
        keeps it until the job is redriven or released.
    :param limits: How many jobs may run at once (``Concurrency``) or start in some time (``Rate``) on all workers.
    :param unique: Fields and labels by which one job is open at a time, and which of two jobs goes.
    :param debounce: How many seconds after the last of several jobs with the same key that one runs, instead of all.
    :param take_turns: A field of the payload or a label. Where jobs wait for the same limit, its values take turns.
    :param schedule: When jobs are submitted automatically: ``Cron("0 9 * * MON-FRI", tz="Europe/Berlin")``,
        ``Every(minutes=5)`` or a list of them. ``jobtape schedules sync`` puts them in force.
    :param version: The version of the payload. Increase it when the payload changes.
    :param upcasters: For each older version, a function that returns a payload of that version as one of the next. It
        must not depend on anything else. Jobs that still wait, or are redriven, have older payloads.
    """

    def decorate(function: Callable[..., Any]) -> JobType[Any]:
        return JobType(
            function,
            name,
            queue=queue,
            lane=lane,
            timeout=timeout,
            retry=retry,
            isolate=isolate,
            memory=memory,
            concurrency=concurrency,
            batch=batch,
            ordering_key=ordering_key,
            on_failure=on_failure,
            limits=limits,
            unique=unique,
            debounce=debounce,
            take_turns=take_turns,
            schedule=schedule,
            version=version,
            upcasters=upcasters,
        )

    return decorate
