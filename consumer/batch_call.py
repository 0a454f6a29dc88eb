"""Calls a batch handler for several jobs, and makes an outcome for each of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from jobtape.consumer.handler_call import Call, ExitForkedChild
from jobtape.consumer.outcome import Failure, Outcome, Success, failure, outcome_of
from jobtape.schemas.execution.context import current


class BatchCall:
    """One call for the jobs of ``calls``, which are of one type. ``outcomes``: theirs in that order, once it has ended.

    A job whose payload does not fit fails, and the others are called without it.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.job_type = calls[0].job_type
        self.outcomes: list[Outcome] = []
        self._calls = calls
        self._found: dict[int, Outcome] = {}

    def run(self) -> Outcome:
        """Call a ``def`` handler, and return a success, which stands for ``outcomes``. Never raises."""
        current.set(None)  # jobs that it submits belong to no single one of these
        try:
            with ExitForkedChild():
                arguments = self._arguments()
                value = self.job_type.function(**arguments) if self._left else None
            self._share(value)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is these jobs' failure
            self._fail(error)
        return self._ended()

    async def run_async(self) -> Outcome:
        """Call an ``async`` handler as ``run`` does. Raises only CancelledError, also one of the handler's own."""
        current.set(None)
        try:
            with ExitForkedChild():
                arguments = self._arguments()
                value = await self.job_type.function(**arguments) if self._left else None
            self._share(value)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - also a SystemExit, which must not end the loop
            self._fail(error)
        return self._ended()

    def failed(self, error: BaseException) -> Failure:
        """Return the failure that ``error`` means for all jobs."""
        return self._calls[0].failed(error)

    @property
    def _left(self) -> list[int]:
        """The jobs that have no outcome yet."""
        return [n for n in range(len(self._calls)) if n not in self._found]

    def _arguments(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for n, call in enumerate(self._calls):
            try:
                arguments = call.arguments()
            except BaseException as error:  # noqa: BLE001 - users' validators can raise anything
                self._found[n] = call.failed(error)
                continue
            for name, value in arguments.items():
                columns.setdefault(name, []).append(value)
        return columns

    def _share(self, value: Any) -> None:
        """Give each job that is left its result."""
        left = self._left
        results = [None] * len(left) if value is None else list(value)
        if len(results) != len(left):
            message = (
                f"the handler of {self.job_type.name} returned {len(results)} results for {len(left)} jobs: return one "
                "for each, in their order"
            )
            self._found |= dict.fromkeys(left, failure("result_invalid", "ResultInvalid", message))
            return
        for n, result in zip(left, results, strict=True):
            self._found[n] = _outcome(self._calls[n], result)

    def _fail(self, error: BaseException) -> None:
        self._found |= {n: self._calls[n].failed(error) for n in self._left}

    def _ended(self) -> Outcome:
        self.outcomes = [self._found[n] for n in range(len(self._calls))]
        return Success(None)


def _outcome(call: Call, result: Any) -> Outcome:
    try:
        if isinstance(result, BaseException):
            return call.failed(result)
        return outcome_of(call.job_type, result, call.max_result)
    except BaseException as error:  # noqa: BLE001 - users' results have code of their own
        return call.failed(error)
