"""The process that runs isolated handlers: ``python -m jobtape.consumer.worker.isolated.child <descriptor> <worker>``.

A fresh interpreter, never a fork of the worker: it imports the job modules itself, sends ``ready`` and then runs one
job after the other, each in its main thread and in a context of its own, until the worker ends it or is gone. What the
handler prints goes where the worker's output goes; what it logs goes over the wire and is the worker's log. A child
that a handler forks has no wire: what it logs goes to stderr.
"""

import asyncio
import contextvars
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from jobtape import loggers as own_loggers
from jobtape import running
from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Failure, Outcome, Success, failure
from jobtape.consumer.worker.isolated.limits import belong_to, memory_limit
from jobtape.consumer.worker.isolated.loop import IsolatedLoop
from jobtape.consumer.worker.isolated.submitting import AskWorker
from jobtape.consumer.worker.isolated.wire import Message, Wire
from jobtape.schemas.context import Context
from jobtape.schemas.job import Progress
from jobtape.schemas.job_types.declared import job_types_in
from jobtape.schemas.job_types.job_type import JobTypeSpec

PROGRESS_EVERY: Final = 0.05
LONGEST_LOG: Final = 8_000


def main() -> None:
    """Serve the worker at the other end of the socket until it is gone."""
    descriptor, worker = int(sys.argv[1]), int(sys.argv[2])
    belong_to(worker)
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(line_buffering=True)
    wire = Wire(socket.socket(fileno=descriptor))
    setup = wire.receive()
    if setup is None:
        return
    sys.path[:] = setup["path"]
    _log_to(wire, setup["level"], setup["own_level"])
    try:
        job_types = _load(setup["modules"])
    except BaseException:  # noqa: BLE001 - whatever their module raises is theirs to see
        wire.send({"broken": traceback.format_exc()[-LONGEST_LOG:]})
        return
    orders: SimpleQueue[Message] = SimpleQueue()
    submitting = AskWorker(wire, setup["installation"], job_types)
    running.register(submitting)
    threading.Thread(target=_read, args=(wire, orders, submitting), name="wire", daemon=True).start()
    reports = _Reports(wire)
    loop = IsolatedLoop()
    wire.send({"ready": os.getpid()})
    while True:
        outcome = _run(job_types, orders.get()["job"], reports, loop, setup["max_result"])
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a handler may have closed it
                stream.flush()
        wire.send({"outcome": outcome_to_json(outcome), "retire": loop.spent or _out_of_memory(outcome)})


def outcome_to_json(outcome: Outcome) -> Message:
    """Return the message that carries ``outcome`` to the worker."""
    if isinstance(outcome, Success):
        return {"result": outcome.result}
    return {"reason": outcome.reason, "error": outcome.error.model_dump(), "wish": outcome.wish}


def _out_of_memory(outcome: Outcome) -> bool:
    """Return whether the handler ran out of memory. Its process may be broken and should be replaced."""
    return isinstance(outcome, Failure) and outcome.error.type == MemoryError.__name__


def _load(modules: Iterable[str]) -> dict[str, JobTypeSpec]:
    return {
        job_type.name: job_type
        for module in modules
        for job_type in job_types_in(importlib.import_module(module), JobTypeSpec)
    }


def _read(wire: Wire, orders: "SimpleQueue[Message]", submitting: AskWorker) -> None:
    while (message := wire.receive()) is not None:
        if "submitted" in message:
            submitting.answered(message)
        else:
            orders.put(message)
    # The worker is gone: nobody waits for what runs here, nor for what that started.
    os.killpg(0, signal.SIGKILL)


def _run(
    job_types: dict[str, JobTypeSpec], job: Message, reports: "_Reports", loop: IsolatedLoop, max_result: int
) -> Outcome:
    job_type = job_types.get(job["type"])
    if job_type is None:
        return failure(
            "unknown_type",
            "UnknownJobType",
            f"the process for isolated handlers found no job type {job['type']!r} in the job modules: define it "
            "whenever its module is imported",
        )
    context = Context(**job["context"], log=_job_log(job["context"]["job_id"]), report=reports.of(job["n"]))
    call = Call(job_type, job["payload"], job["version"], context, max_result)
    # Not a copy of this thread's: what is in that can be changed in place, as the decimal context is.
    variables, limit = contextvars.Context(), memory_limit(job["memory"])
    if not job_type.is_async:
        return variables.run(call.run, limit)
    try:
        return loop.run(call.run_async(limit), variables)
    except asyncio.CancelledError as error:  # its own: who cancels the job kills this process
        return call.failed(error)


class _Reports:
    """Sends the latest progress, some twenty times a second at most, whatever the handler does meanwhile."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._latest: SimpleQueue[tuple[int, Progress]] = SimpleQueue()
        self._pause = threading.Event()
        threading.Thread(target=self._send, name="progress", daemon=True).start()

    def of(self, n: int) -> Callable[[Progress], None]:
        """Return a function that takes the progress of the ``n``-th job and never blocks."""
        return lambda progress: self._latest.put((n, progress))

    def _send(self) -> None:
        while True:
            n, progress = self._latest.get()
            while not self._latest.empty():
                n, progress = self._latest.get()
            with suppress(OSError):
                self._wire.send({"progress": progress.model_dump(), "n": n})
            self._pause.wait(PROGRESS_EVERY)


class _ToWire(logging.Handler):
    """Logging handler that sends each record to the worker, which logs it."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record with its traceback."""
        try:
            text = self.format(record)
            if self._wire.left:  # in a child that a handler forked
                print(text, file=sys.stderr, flush=True)
                return
            job_id = getattr(record, "job_id", None)
            self._wire.send({"log": [record.name, record.levelno, text[:LONGEST_LOG], job_id]})
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)


def _log_to(wire: Wire, level: int, own_level: int) -> None:
    to_wire = _ToWire(wire)
    root = logging.getLogger()
    root.handlers[:] = [to_wire]
    root.setLevel(level)
    logging.getLogger("jobtape.job")  # made here, so that no module can switch it off
    own_loggers.protect(to_wire, own_level)
    logging.captureWarnings(True)


def _job_log(job_id: str) -> "logging.LoggerAdapter[logging.Logger]":
    return logging.LoggerAdapter(logging.getLogger("jobtape.job"), {"job_id": job_id})


if __name__ == "__main__":
    main()
