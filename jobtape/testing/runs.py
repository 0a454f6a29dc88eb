"""Runs one handler as a worker does, without broker and database."""

import asyncio
import logging
import threading
from typing import Any, Final

from uuid_utils import uuid7

from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Failure, NamedFollowUps, Outcome, timed_out
from jobtape.jobs import JobType
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import Reason
from jobtape.schemas.execution.context import Context
from jobtape.schemas.flows.follow_ups import FollowUps
from jobtape.schemas.job import ErrorInfo, Progress

MAX_RESULT: Final = 2**20
"""Bytes of JSON that a result may have, as by default in a worker."""


class HandlerFailed(JobtapeError):
    """The handler has no result. ``reason`` and ``error`` are what a worker records of it."""

    def __init__(self, job_type: str, failure: Failure) -> None:
        shown = failure.error.traceback or f"{failure.error.type}: {failure.error.message}"
        super().__init__(f"the handler of {job_type} failed with the reason {failure.reason!r}:\n{shown}")
        self.reason: Reason = failure.reason
        self.error: ErrorInfo = failure.error
        self.retry_after = failure.retry_after
        """``"never"``, ``"policy"`` (as the job type's retry policy says) or the seconds until the next attempt."""


def run(handler: JobType[Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run the handler of a job type with these arguments, and return its result.

    The arguments are checked, converted to JSON and back, and so is the result, as between submission and worker. The
    handler gets a real ``Context``, and has the timeout of the job type. An ``async def`` runs on an event loop of its
    own, so a test needs none; a batch handler gets this one job; an isolated one runs in this process. A handler that
    ends with ``ctx.then`` returns what is recorded of it, a ``FollowUps``.

    Raises PayloadInvalid if the arguments do not fit, and HandlerFailed if the handler failed. What it submits needs
    an installation, see ``memory``.
    """
    payload = handler.accept(handler.payload_to_send(*args, **kwargs))
    outcome = outcome_of(handler, payload)
    if isinstance(outcome, Failure):
        raise HandlerFailed(handler.name, outcome)
    if isinstance(outcome, NamedFollowUps):
        return FollowUps(outcome.body)
    return handler.read_result(outcome.result)


def outcome_of(job_type: JobType[Any], payload: dict[str, Any]) -> Outcome:
    """Return the outcome of the handler for a recorded payload. Never raises what the handler raises."""
    context = Context(
        job_id=str(uuid7()),
        job_type=job_type.name,
        run=1,
        attempt=1,
        log=logging.getLogger("jobtape.job"),
        report=_ignore,
    )
    call = Call(job_type, payload, None, context, MAX_RESULT)
    outcomes: list[Outcome] = []

    def work() -> None:
        if not job_type.is_async:
            outcomes.append(call.run())
            return
        try:
            outcomes.append(asyncio.run(call.run_async()))
        except BaseException as error:  # noqa: BLE001 - the handler cancelled itself, or a task of its raised SystemExit
            outcomes.append(call.failed(error))

    # A thread as in a worker: the test may have a running event loop, and a handler that does not end is abandoned.
    thread = threading.Thread(target=work, name=f"run {job_type.name}", daemon=True)
    thread.start()
    thread.join(job_type.timeout)
    return outcomes[0] if outcomes else timed_out(job_type, job_type.timeout)


def _ignore(progress: Progress) -> None:
    """Publish no progress."""
