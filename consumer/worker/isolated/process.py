"""One process for isolated handlers, as its worker sees it: started, given a job, killed."""

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

from jobtape import running
from jobtape.consumer.outcome import Failure, Outcome, Success, crashed, timed_out
from jobtape.consumer.worker.isolated.submitting import answer_to
from jobtape.consumer.worker.isolated.wire import Message, pack, receive
from jobtape.schemas.context import Context
from jobtape.schemas.job import ErrorInfo, Order, Progress
from jobtape.schemas.job_types.job_type import JobTypeSpec

_ROUNDS: Final = 5


def kill_all(pid: int) -> None:
    """SIGKILL for the process ``pid``, which leads a process group, for that group, and (Linux) for its descendants,
    also those that left the group. They are stopped first: what runs could start others meanwhile.
    """
    seen = {pid}
    _signal(pid, signal.SIGSTOP)
    for _ in range(_ROUNDS):
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
    with suppress(OSError):  # it has ended, or this system has no such files
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                for child in map(int, children.read_text().split()):
                    yield child
                    yield from _descendants(child)


START_LIMIT: Final = 30.0
"""Seconds to import the job modules in."""
REST: Final = 1.0
"""Seconds for what a process said before its end: a daemon that it left may hold the wire open."""
JOBS_PER_PROCESS: Final = 100
"""Then another one takes its place, so that what handlers leak does not grow for ever."""


class ProcessNotStarted(Exception):
    """The process did not get ready; the text says why."""


class IsolatedProcess:
    """Use ``start``. One job at a time."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.ended = asyncio.Event()
        """Set when it is of no more use: it has ended, or is being killed."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self.jobs = 0
        self._submitting: set[asyncio.Task[None]] = set()
        self._closing = asyncio.create_task(self._close(), name=f"end of process {process.pid}")

    @classmethod
    async def start(cls, modules: Sequence[str], max_result: int) -> "IsolatedProcess":
        """A fresh process that has imported ``modules``. Raises CannotStart."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = str(theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "jobtape.consumer.worker.isolated.child", descriptor, str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C on the terminal is for the worker alone; and it leads a group
            )
        made = cls(process, *await asyncio.open_connection(sock=ours))
        try:
            async with asyncio.timeout(START_LIMIT):
                await made._set_up(modules, max_result)
        except TimeoutError:
            made.kill()
            raise ProcessNotStarted(f"did not import the job modules within {START_LIMIT:g} s") from None
        except BaseException:
            made.kill()
            raise
        return made

    async def run(self, job_type: JobTypeSpec, order: Order, context: Context) -> Outcome:
        """Do one job; it is killed when its time-out is over, or when this is cancelled."""
        self.jobs += 1
        job = {
            "type": job_type.name,
            "payload": order.payload,
            "version": order.payload_version,
            "memory": job_type.memory,
            "n": self.jobs,
            "context": {
                "job_id": context.job_id,
                "job_type": context.job_type,
                "run": context.run,
                "attempt": context.attempt,
                "correlation_id": context.correlation_id,
                "event_id": context.event_id,
            },
        }
        try:
            async with asyncio.timeout(order.timeout):
                answer = await self._do(job, context)
        except TimeoutError:
            await self.kill_and_wait()
            return timed_out(job_type, order.timeout)
        except BaseException:
            await self.kill_and_wait()
            raise
        if answer is None:
            await self.kill_and_wait()
            return crashed(job_type, _how(self._process.returncode))
        if answer["retire"] or self.jobs >= JOBS_PER_PROCESS:
            self.kill()
        return _outcome(answer["outcome"])

    def kill(self) -> None:
        """End it and all that it started, now."""
        self.ended.set()
        if self._process.returncode is None:
            kill_all(self._process.pid)

    async def kill_and_wait(self) -> None:
        """The same, and it has ended."""
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
            _pass_on(answer["log"])
        await self.kill_and_wait()
        raise ProcessNotStarted(f"{_how(self._process.returncode)} while it imported the job modules")

    async def _do(self, job: Message, context: Context) -> Message | None:
        """What it answers; None when it ended instead."""
        await self._send({"job": job})
        while (answer := await self._receive()) is not None:
            if "outcome" in answer:
                return answer
            if "log" in answer:
                _pass_on(answer["log"])
            elif "submit" in answer:
                task = asyncio.create_task(self._submit(answer), name="submission of an isolated handler")
                self._submitting.add(task)
                task.add_done_callback(self._submitting.discard)
            elif answer.get("n") == job["n"]:  # not the last word on the job before
                context.report(Progress(**answer["progress"]))
        return None

    async def _submit(self, message: Message) -> None:
        await self._send(await answer_to(message))

    async def _send(self, message: Message) -> None:
        with suppress(OSError):  # it has ended, which receiving shows
            self._writer.write(pack(message))
            await self._writer.drain()

    async def _receive(self) -> Message | None:
        """The next message; None when there will be none, also if a process that it left holds the wire open."""
        reading = asyncio.ensure_future(receive(self._reader))
        try:
            await asyncio.wait({reading, self._closing}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait({reading}, timeout=REST)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()

    async def _close(self) -> None:
        await self._process.wait()
        self.ended.set()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what it started and left behind
        # What it said is still to be read; closing our end is for the one who reads it.
        self._writer.close()


def _outcome(answer: Message) -> Outcome:
    if "result" in answer:
        return Success(answer["result"])
    return Failure(answer["reason"], ErrorInfo(**answer["error"]), answer["wish"])


def _pass_on(record: list[Any]) -> None:
    name, level, text, job_id = record
    logging.getLogger(name).log(level, "%s", text, extra=None if job_id is None else {"job_id": job_id})


def _how(code: int | None) -> str:
    if code is None:
        return "was given up"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}" + (" (the system does that when memory is short)" if -code == signal.SIGKILL else "")
