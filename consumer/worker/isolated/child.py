"""The process that runs isolated handlers: ``python -m jobtape.consumer.worker.isolated.child <descriptor> <worker>``.

It is a fresh interpreter, never a fork of the worker. It imports the job modules itself, sends ``ready`` and then runs
one job after the other, each in its main thread and in a context of its own, until the worker kills it or ends. What a
handler prints goes where the worker's output goes. What it logs is sent to the worker, which logs it; in a child that a
handler forked, it goes to stderr.
"""

import asyncio
import contextvars
import ctypes
import importlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import Failure, NamedFollowUps, Outcome, Success, failure
from jobtape.consumer.worker.isolated.loop import IsolatedLoop
from jobtape.consumer.worker.isolated.submitting import WorkerInstallation
from jobtape.consumer.worker.isolated.wire import ChildWire, Message
from jobtape.process import loggers as own_loggers
from jobtape.process import running
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Progress
from jobtape.schemas.job_types.declared import job_types_in
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.telemetry import setup as telemetry
from jobtape.telemetry.job_logs import JobFilter, fields_of

PROGRESS_INTERVAL: Final = 0.05
"""Seconds between two messages with progress."""
LONGEST_LOG: Final = 8_000
# <linux/prctl.h>
_SET_DEATH_SIGNAL: Final = 1
_SET_CHILD_SUBREAPER: Final = 36


def main() -> None:
    """Run the jobs that the worker at the other end of the socket sends."""
    descriptor, worker = int(sys.argv[1]), int(sys.argv[2])
    end_with_worker(worker)
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(line_buffering=True)
    wire = ChildWire(socket.socket(fileno=descriptor))
    setup = wire.receive()
    if setup is None:
        return
    sys.path[:] = setup["path"]
    _log_to(wire, setup["level"], setup["own_level"])
    try:
        telemetry.start("worker", metrics=False)
        job_types = _load(setup["modules"])
    except BaseException:  # noqa: BLE001 - whatever a module raises, its author has to see it
        wire.send({"broken": traceback.format_exc()[-LONGEST_LOG:]})
        return
    jobs: SimpleQueue[Message] = SimpleQueue()
    installation = WorkerInstallation(wire, setup["installation"], job_types)
    running.register(installation)
    threading.Thread(target=_receive, args=(wire, jobs, installation), name="wire", daemon=True).start()
    progress = _ProgressSender(wire)
    loop = IsolatedLoop()
    wire.send({"ready": os.getpid()})
    while True:
        outcome = _run(job_types, jobs.get()["job"], progress, loop, setup["max_result"])
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a handler may have closed it
                stream.flush()
        telemetry.flush()  # the worker may kill this process at any time from now on
        wire.send({"outcome": outcome_to_json(outcome), "replace": loop.still_busy or _out_of_memory(outcome)})


def end_with_worker(worker: int) -> None:
    """Have this process killed when the worker with this process id ends.

    The process also stays the ancestor of all processes that a handler starts, daemons too, so that all of them can be
    found and killed. Both work on Linux only. Elsewhere this process ends when its socket is closed, which a handler
    that never releases the GIL prevents.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != worker:  # it ended before the call of prctl
        os._exit(0)


@contextmanager
def memory_limit(more: int | None) -> Iterator[None]:
    """Limit the address space of this process to ``more`` bytes beyond what it has now; None means no limit.

    An allocation beyond the limit fails: with a MemoryError in Python, with any error in a library.
    """
    if more is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome_to_json(outcome: Outcome) -> Message:
    """Return the message that carries ``outcome`` to the worker."""
    if isinstance(outcome, Success):
        return {"result": outcome.result}
    if isinstance(outcome, NamedFollowUps):
        return {"then": outcome.body}
    return {"reason": outcome.reason, "error": outcome.error.model_dump(), "retry_after": outcome.retry_after}


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux: the most memory that it has used
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


def _out_of_memory(outcome: Outcome) -> bool:
    """Return whether the handler ran out of memory: then this process may be broken."""
    return isinstance(outcome, Failure) and outcome.error.type == MemoryError.__name__


def _load(modules: Iterable[str]) -> dict[str, JobTypeSpec]:
    return {
        job_type.name: job_type
        for module in modules
        for job_type in job_types_in(importlib.import_module(module), JobTypeSpec)
    }


def _receive(wire: ChildWire, jobs: "SimpleQueue[Message]", installation: WorkerInstallation) -> None:
    while (message := wire.receive()) is not None:
        if "submitted" in message:
            installation.on_answer(message)
        else:
            jobs.put(message)
    # The worker is gone: nobody waits for the handler, nor for the processes that it started.
    os.killpg(0, signal.SIGKILL)


def _run(
    job_types: dict[str, JobTypeSpec], job: Message, progress: "_ProgressSender", loop: IsolatedLoop, max_result: int
) -> Outcome:
    job_type = job_types.get(job["type"])
    if job_type is None:
        return failure(
            "unknown_type",
            "UnknownJobType",
            f"the process for isolated handlers found no job type {job['type']!r} in the job modules: define it "
            "whenever its module is imported",
        )
    job_log = logging.LoggerAdapter(logging.getLogger("jobtape.job"), {"job_id": job["context"]["job_id"]})
    context = Context(**job["context"], log=job_log, report=progress.reporter(job["n"]))
    call = Call(job_type, job["payload"], job["version"], context, max_result)
    # Not a copy of this thread's context, whose values can be changed in place, for example the decimal context.
    variables, limit = contextvars.Context(), memory_limit(job["memory"])
    if not job_type.is_async:
        return variables.run(call.run, limit)
    try:
        return loop.run(call.run_async(limit), variables)
    except asyncio.CancelledError as error:  # the handler's own: to cancel the job, the worker kills this process
        return call.failed(error)


class _ProgressSender:
    """Sends the latest progress in a thread, with pauses, whatever the handler does meanwhile."""

    def __init__(self, wire: ChildWire) -> None:
        self._wire = wire
        self._reports: SimpleQueue[tuple[int, Progress]] = SimpleQueue()
        self._pause = threading.Event()
        threading.Thread(target=self._send, name="progress", daemon=True).start()

    def reporter(self, n: int) -> Callable[[Progress], None]:
        """Return a function that takes the progress of the ``n``-th job and never blocks."""
        return lambda progress: self._reports.put((n, progress))

    def _send(self) -> None:
        while True:
            n, progress = self._reports.get()
            while not self._reports.empty():
                n, progress = self._reports.get()
            with suppress(OSError):
                self._wire.send({"progress": progress.model_dump(), "n": n})
            self._pause.wait(PROGRESS_INTERVAL)


class _WireLogHandler(logging.Handler):
    """Sends each log record to the worker."""

    def __init__(self, wire: ChildWire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record with its traceback."""
        try:
            text = self.format(record)
            if self._wire.detached:  # in a child that a handler forked
                print(text, file=sys.stderr, flush=True)
                return
            self._wire.send({"log": [record.name, record.levelno, text[:LONGEST_LOG], fields_of(record)]})
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)


def _log_to(wire: ChildWire, level: int, own_level: int) -> None:
    handler = _WireLogHandler(wire)
    handler.addFilter(JobFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("jobtape.job")  # made here, so that no module can disable it
    own_loggers.protect(handler, own_level)
    logging.captureWarnings(True)


if __name__ == "__main__":
    main()
