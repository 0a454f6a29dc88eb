"""How an isolated handler submits jobs: its process asks the worker, which has the connection, over their wire.

The process sends ``submit`` with a number of its own, the job type's name, the payload and the options; the worker
answers ``submitted`` with that number, and the job or the error.
"""

import asyncio
import itertools
import threading
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter

from jobtape import running
from jobtape.consumer.worker.isolated.wire import Message, Wire
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import Job

_JOB: Final[TypeAdapter[Job]] = TypeAdapter(Job)


class AskWorker:
    """The process's end: an ``Installation`` for all its threads and event loops. ``name`` is the worker's own."""

    def __init__(self, wire: Wire, name: str, job_types: Container[str]) -> None:
        self.name = name
        self.job_types = job_types
        self._wire = wire
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Job]] = {}
        self._turn = threading.Lock()

    def is_here(self) -> bool:
        """No event loop of this process has the connection."""
        return False

    async def submit(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Job:  # noqa: A002
        """Accept a job. Cancelled, the worker goes on with it."""
        return await asyncio.wrap_future(self._ask(type, payload, options))

    def submit_sync(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Job:  # noqa: A002
        """``submit``, which blocks the calling thread."""
        return self._ask(type, payload, options).result()

    def answered(self, message: Message) -> None:
        """Take the worker's answer to a submission."""
        with self._turn:
            waiting = self._waiting.pop(message["submitted"], None)
        if waiting is None or not waiting.set_running_or_notify_cancel():
            return
        if "job" in message:
            waiting.set_result(_JOB.validate_python(message["job"]))
        else:
            waiting.set_exception(_error(message["error"], message["text"]))

    def _ask(self, type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> "Future[Job]":  # noqa: A002
        run_at = options.get("run_at")
        said = {**options, "run_at": run_at.isoformat() if isinstance(run_at, datetime) else run_at}
        answer: Future[Job] = Future()
        with self._turn:
            number = next(self._numbers)
            self._waiting[number] = answer
        try:
            self._wire.send({"submit": number, "type": type, "payload": payload, "options": said})
        except (TypeError, ValueError) as error:
            del self._waiting[number]
            raise JobtapeError(f"nothing was submitted: {error}") from None
        return answer


async def answer_to(message: Message) -> Message:
    """The worker's end: submit what the process asks for. Never raises."""
    number = message["submit"]
    try:
        installation = running.installation_for(message["type"])
        job = await installation.submit(message["type"], message["payload"], message["options"])
    except JobtapeError as error:
        return {"submitted": number, "error": type(error).__name__, "text": str(error)}
    return {"submitted": number, "job": _JOB.dump_python(job, mode="json")}


def _error(name: str, text: str) -> JobtapeError:
    """The error of that name, or a plain JobtapeError where its class needs more than a text or is not known here."""
    for kind in _kinds(JobtapeError):
        if kind.__name__ == name:
            with suppress(TypeError):
                return kind(text)
    return JobtapeError(text)


def _kinds(kind: type[JobtapeError]) -> Iterator[type[JobtapeError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)
