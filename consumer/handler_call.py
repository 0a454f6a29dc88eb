"""Calls a handler and makes an outcome of whatever comes of it: the same on the loop, in a thread and in a process.

All code of the users' runs in here: upcasters and validators of the payload, the handler, and what its result's own
code does while it is checked and written. Nothing of that raises, but for a cancellation. A child that any of it forked
and that comes back ends here, and has no outcome.
"""

import asyncio
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from jobtape import forks
from jobtape.consumer.outcome import Failure, Outcome, failure, failure_of, success_of
from jobtape.schemas.context import Context, current
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job import ErrorInfo
from jobtape.schemas.job_types.job_type import JobTypeSpec

OURS: Final = str(Path(__file__).parent)


class PayloadMisfit(Exception):
    """The payload does not fit the job type: not to be mistaken for a PayloadInvalid that a handler itself met."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the handler of ``job_type``.

    ``payload_version``: None for the newest; ``max_result``: bytes of JSON.
    """

    job_type: JobTypeSpec
    payload: dict[str, Any]
    payload_version: int | None
    context: Context
    max_result: int

    def run(self, limits: AbstractContextManager[None] | None = None) -> Outcome:
        """Run a ``def`` handler, within ``limits``. Never raises."""
        here = os.getpid()
        current.set(self.context)  # of this thread's or task's own context
        try:
            with limits or nullcontext():
                value = self.job_type.function(**self._arguments())
            outcome = success_of(self.job_type, value, self.max_result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this job's failure
            forks.exit_if_child(here, error)
            return self.failed(error)
        forks.exit_if_child(here)
        return outcome

    async def run_async(self, limits: AbstractContextManager[None] | None = None) -> Outcome:
        """Run an ``async`` handler, within ``limits``. Raises CancelledError, the handler's own too; else nothing, so
        that a SystemExit ends no loop.
        """
        here = os.getpid()
        current.set(self.context)  # of this thread's or task's own context
        try:
            with limits or nullcontext():
                value = await self.job_type.function(**self._arguments())
            outcome = success_of(self.job_type, value, self.max_result)
        except asyncio.CancelledError as error:
            forks.exit_if_child(here, error)
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this job's failure
            forks.exit_if_child(here, error)
            return self.failed(error)
        forks.exit_if_child(here)
        return outcome

    def failed(self, error: BaseException) -> Failure:
        """The failure that ``error`` is. Never raises, whatever the error's own code does."""
        if isinstance(error, PayloadMisfit):
            return failure("payload_invalid", "PayloadInvalid", str(error))
        try:
            return failure_of(error, self.job_type.retry, skip=_frames_of_ours(error.__traceback__))
        except BaseException as broken:  # noqa: BLE001 - an exception of the users' has code of its own
            text = f"(its text could not be made: {type(broken).__name__})"
            return Failure("error", ErrorInfo(type=type(error).__name__, message=text))

    def _arguments(self) -> dict[str, Any]:
        try:
            arguments = self.job_type.arguments(self.payload, self.payload_version)
        except PayloadInvalid as error:
            raise PayloadMisfit(str(error)) from error
        name = self.job_type.context_parameter
        return arguments if name is None else {**arguments, name: self.context}


def _frames_of_ours(trace: TracebackType | None) -> int:
    """How many frames at the beginning of a traceback are ours; 0 when all are, since then they say where it was."""
    count = 0
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(OURS):
            return count
        trace, count = trace.tb_next, count + 1
    return 0
