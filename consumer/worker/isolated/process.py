"""One process for isolated handlers, as its worker uses it: start it, give it jobs, kill it."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from jobtape.consumer.outcome import Failure, NamedFollowUps, Outcome, Success, crashed, timed_out
from jobtape.consumer.worker.isolated.submitting import submit_for_child
from jobtape.consumer.worker.isolated.wire import Message, pack, receive
from jobtape.process import running
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import ErrorInfo, Order, Progress
from jobtape.schemas.job_types.job_type import JobTypeSpec

START_TIMEOUT: Final = 30.0
"""Seconds within which a process must have imported the job modules."""
LAST_MESSAGES: Final = 1.0
"""Seconds for reading what a process sent before it ended: a daemon that it started may hold the socket open."""
JOBS_PER_PROCESS: Final = 100
"""After so many jobs a process is replaced, so that memory that handlers leak is freed."""
_STOP_ROUNDS: Final = 5
_CONTEXT: Final = (
    "job_id",
    "job_type",
    "run",
    "attempt",
    "correlation_id",
    "event_id",
    "fence",
    "flow",
    "depth",
    "traceparent",
)


class ProcessNotStarted(Exception):
    """The process did not become ready; the text says why."""


class IsolatedProcess:
    """A process that runs one job at a time. Create it with ``start``."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.ended = asyncio.Event()
        """Set when the process has ended or is being killed."""
        self.jobs = 0
        """How many jobs it was given."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._submissions: set[asyncio.Task[None]] = set()
        self._closing = asyncio.create_task(self._close(), name=f"end of process {process.pid}")

    @classmethod
    async def start(cls, modules: Sequence[str], max_result: int) -> "IsolatedProcess":
        """Return a new process that has imported ``modules``. Raises ProcessNotStarted."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = str(theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "jobtape.consumer.worker.isolated.child", descriptor, str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C on the terminal is for the worker only; and the process leads a group
            )
        made = cls(process, *await asyncio.open_connection(sock=ours))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await made._set_up(modules, max_result)
        except TimeoutError:
            made.kill()
            raise ProcessNotStarted(f"did not import the job modules within {START_TIMEOUT:g} s") from None
        except BaseException:
            made.kill()
            raise
        return made

    async def run(self, job_type: JobTypeSpec, order: Order, context: Context) -> Outcome:
        """Run one job. The process is killed when the order's timeout is over, or when this is cancelled."""
        self.jobs += 1
        job = {
            "type": job_type.name,
            "payload": order.payload,
            "version": order.payload_version,
            "memory": job_type.memory,
            "n": self.jobs,
            "context": {name: getattr(context, name) for name in _CONTEXT},
        }
        try:
            async with asyncio.timeout(order.timeout):
                answer = await self._run(job, context)
        except TimeoutError:
            await self.kill_and_wait()
            return timed_out(job_type, order.timeout)
        except BaseException:
            await self.kill_and_wait()
            raise
        if answer is None:
            await self.kill_and_wait()
            return crashed(job_type, _end_of(self._process.returncode))
        if answer["replace"] or self.jobs >= JOBS_PER_PROCESS:
            self.kill()
        return _outcome(answer["outcome"])

    def kill(self) -> None:
        """Kill the process and all processes that it started."""
        self.ended.set()
        if self._process.returncode is None:
            kill_all(self._process.pid)

    async def kill_and_wait(self) -> None:
        """Kill the process as ``kill`` does, and wait until it has ended."""
        self.kill()
        await asyncio.shield(self._closing)

    async def _set_up(self, modules: Sequence[str], max_result: int) -> None:
        await self._send(
            {
                "path": sys.path,
                "modules": list(modules),
                "max_result": max_result,
                "level": logging.getLogger().getEffectiveLevel(),
                "installation": running.name(),
                "own_level": logging.getLogger("jobtape").getEffectiveLevel(),
            }
        )
        while (answer := await self._receive()) is not None:
            if "ready" in answer:
                return
            if "broken" in answer:
                raise ProcessNotStarted(f"could not import the job modules: {answer['broken']}")
            _log(answer["log"])
        await self.kill_and_wait()
        raise ProcessNotStarted(f"{_end_of(self._process.returncode)} while it imported the job modules")

    async def _run(self, job: Message, context: Context) -> Message | None:
        """Return the message with the outcome, or None when the process ended without one."""
        await self._send({"job": job})
        while (answer := await self._receive()) is not None:
            if "outcome" in answer:
                return answer
            if "log" in answer:
                _log(answer["log"])
            elif "submit" in answer:
                task = asyncio.create_task(self._submit(answer), name="submission of an isolated handler")
                self._submissions.add(task)
                task.add_done_callback(self._submissions.discard)
            elif answer.get("n") == job["n"]:  # not the last progress of the job before
                context.report(Progress(**answer["progress"]))
        return None

    async def _submit(self, message: Message) -> None:
        await self._send(await submit_for_child(message))

    async def _send(self, message: Message) -> None:
        with suppress(OSError):  # the process has ended, which ``_receive`` notices
            self._writer.write(pack(message))
            await self._writer.drain()

    async def _receive(self) -> Message | None:
        """Return the next message, or None when the process has ended, even if a child of it holds the socket open."""
        reading = asyncio.ensure_future(receive(self._reader))
        try:
            await asyncio.wait({reading, self._closing}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait({reading}, timeout=LAST_MESSAGES)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()

    async def _close(self) -> None:
        await self._process.wait()
        self.ended.set()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the processes that it started
        self._writer.close()  # the reader still returns what has arrived


def kill_all(pid: int) -> None:
    """Kill the process ``pid``, its process group, and (on Linux) its descendants that have left the group.

    They are stopped first, because a running process could start others meanwhile.
    """
    seen = {pid}
    _signal(pid, signal.SIGSTOP)
    for _ in range(_STOP_ROUNDS):
        new = set(_descendants(pid)) - seen
        if not new:
            break
        for each in new:
            _signal(each, signal.SIGSTOP)
        seen |= new
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for each in seen:
        _signal(each, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):  # the process has ended, or this system has no such files
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                for child in map(int, children.read_text().split()):
                    yield child
                    yield from _descendants(child)


def _outcome(answer: Message) -> Outcome:
    if "result" in answer:
        return Success(answer["result"])
    if "then" in answer:
        return NamedFollowUps(answer["then"])
    return Failure(answer["reason"], ErrorInfo(**answer["error"]), answer["retry_after"])


def _log(record: list[Any]) -> None:
    name, level, text, fields = record
    logging.getLogger(name).log(level, "%s", text, extra=fields)


def _end_of(code: int | None) -> str:
    if code is None:
        return "was given up"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}" + (" (the system does that when memory is short)" if -code == signal.SIGKILL else "")
