"""Calls a handler and makes an outcome of its result or error, in the same way on a loop, in a thread or in a process.

All user code of a job runs in here: upcasters and validators of the payload, the handler, and the code that its result
runs while it is checked and converted to JSON.
"""

import asyncio
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from jobtape.consumer.outcome import Failure, Outcome, failure, failure_of, outcome_of
from jobtape.process import forks
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.execution.context import Context, current
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.telemetry import tracing
from jobtape.telemetry.work import ExecutionSpan


class PayloadMisfit(Exception):
    """The payload does not fit the job type. A handler itself may raise PayloadInvalid for another reason."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the handler of ``job_type``.

    ``payload_version``: None means the newest. ``max_result``: limit of the result in bytes of JSON.
    ``span``: that of the execution, which becomes the handler's current one.
    """

    job_type: JobTypeSpec
    payload: dict[str, Any]
    payload_version: int | None
    context: Context
    max_result: int
    span: ExecutionSpan | None = None

    def run(self, limits: AbstractContextManager[None] | None = None) -> Outcome:
        """Run a ``def`` handler inside ``limits``. Never raises."""
        self._enter()  # in the thread's own context
        try:
            with ExitForkedChild():
                with limits or nullcontext():
                    value = self.job_type.function(**self._arguments())
                return outcome_of(self.job_type, self._own(value), self.max_result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this job's failure
            return self.failed(error)

    async def run_async(self, limits: AbstractContextManager[None] | None = None) -> Outcome:
        """Run an ``async`` handler inside ``limits``. Raises only CancelledError, also one of the handler's own."""
        self._enter()  # in the task's own context
        try:
            with ExitForkedChild():
                with limits or nullcontext():
                    value = await self.job_type.function(**self._arguments())
                return outcome_of(self.job_type, self._own(value), self.max_result)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - also a SystemExit, which must not end the loop
            return self.failed(error)

    def failed(self, error: BaseException) -> Failure:
        """Return the failure that ``error`` means. Never raises, whatever the error's own code does."""
        if type(error) is PayloadMisfit:  # isinstance would ask the error for its class
            return failure("payload_invalid", "PayloadInvalid", str(error))
        return failure_of(error, self.job_type.retry)

    def arguments(self) -> dict[str, Any]:
        """Return the handler's keyword arguments for this job.

        Raises PayloadMisfit, and what users' validators raise.
        """
        try:
            arguments = self.job_type.arguments(self.payload, self.payload_version, self.context.flow)
        except PayloadInvalid as error:
            raise PayloadMisfit(str(error)) from error
        name = self.job_type.context_parameter
        return arguments if name is None else {**arguments, name: self.context}

    def _enter(self) -> None:
        current.set(self.context)
        tracing.enter_handler(self.context.traceparent, self.span)

    def _arguments(self) -> dict[str, Any]:
        arguments = self.arguments()
        return arguments if self.job_type.batch is None else {name: [value] for name, value in arguments.items()}

    def _own(self, value: Any) -> Any:
        """Return the result of this job; of a batch handler, which was called for it alone, the only one."""
        if self.job_type.batch is None or value is None:
            return value
        (result,) = value
        if isinstance(result, BaseException):
            raise result
        return result


class ExitForkedChild:
    """Ends a child process that a handler forked, when the child leaves the block."""

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        forks.exit_if_child(self._pid, error)
