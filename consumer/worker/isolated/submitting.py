"""Submits jobs for isolated handlers: their process asks the worker, which has the connection, over their wire.

The process sends ``submit`` with a number, and the submission. The worker answers ``submitted`` with that number, and
the job or the error.
"""

import asyncio
import itertools
import threading
from collections.abc import Container
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from pydantic import TypeAdapter

from jobtape.consumer.worker.isolated.wire import ChildWire, Message
from jobtape.process import running
from jobtape.schemas import errors
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import FlowNode, Job
from jobtape.schemas.submission import Spawned, Submission, read_submission
from jobtape.telemetry import tracing
from jobtape.telemetry.tracing import HEADER

_JOB: Final[TypeAdapter[Job]] = TypeAdapter(Job)


class WorkerInstallation(running.Installation):
    """The installation of the process for isolated handlers. ``name`` is that of the worker's own installation."""

    def __init__(self, wire: ChildWire, name: str, job_types: Container[str]) -> None:
        self.name = name
        self.job_types = job_types
        self._wire = wire
        self._numbers = itertools.count()
        self._answers: dict[int, Future[Job]] = {}
        self._lock = threading.Lock()

    def is_here(self) -> bool:
        """Return False: no event loop of this process has the connection."""
        return False

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job. When this is cancelled, the worker submits it nevertheless."""
        return await asyncio.wrap_future(self._send(submission, idempotency_key, causation_id, spawned))

    def submit_sync(
        self,
        submission: Submission,
        idempotency_key: str | None,
        causation_id: str | None,
        spawned: Spawned | None = None,
    ) -> Job:
        return self._send(submission, idempotency_key, causation_id, spawned).result()

    def on_answer(self, message: Message) -> None:
        """Take the worker's answer to a submission."""
        with self._lock:
            answer = self._answers.pop(message["submitted"], None)
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        if "job" in message:
            answer.set_result(_JOB.validate_python(message["job"]))
        else:
            answer.set_exception(_error(message["error"], message["text"]))

    def _send(
        self, submission: Submission, key: str | None, causation_id: str | None, spawned: Spawned | None
    ) -> "Future[Job]":
        body = submission.model_dump(mode="json")
        child = None if spawned is None else {"id": spawned.id, "flow": spawned.flow.model_dump(mode="json")}
        answer: Future[Job] = Future()
        with self._lock:
            number = next(self._numbers)
            self._answers[number] = answer
        try:
            message = {"submit": number, "submission": body, "key": key, "causation": causation_id, "spawned": child}
            message[HEADER] = tracing.traceparent()
            self._wire.send(message)
        except (TypeError, ValueError) as error:
            del self._answers[number]
            raise JobtapeError(f"nothing was submitted: {error}") from None
        return answer


async def submit_for_child(message: Message) -> Message:
    """In the worker: submit the job that the process asks for, and return the answer. Never raises."""
    number = message["submit"]
    try:
        submission = read_submission(message["submission"], Submission)
        installation = running.installation_for(submission.type)
        child = message["spawned"]
        spawned = None if child is None else Spawned(child["id"], FlowNode.model_validate(child["flow"]))
        with tracing.within(message[HEADER]):
            job = await installation.submit(submission, message["key"], message["causation"], spawned)
    except JobtapeError as error:
        return {"submitted": number, "error": type(error).__name__, "text": str(error)}
    return {"submitted": number, "job": _JOB.dump_python(job, mode="json")}


def _error(name: str, text: str) -> JobtapeError:
    """Return the error called ``name``; a plain JobtapeError if it is not known here or needs more than a text."""
    with suppress(AttributeError, TypeError):
        error: JobtapeError = getattr(errors, name)(text)
        return error
    return JobtapeError(text)
