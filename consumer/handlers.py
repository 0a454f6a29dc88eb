"""Runs the users' handlers, where they cannot hurt the connection.

``async def`` handlers run on an event loop in a thread of its own, ``def`` handlers in a pool of threads; the loop
that keeps the AMQP connection alive runs no user code. So a handler that blocks costs its neighbours time, and never
the heartbeat.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobtape.consumer.outcome import Failure, Outcome, Success, failure, failure_of
from jobtape.schemas import plainjson
from jobtape.schemas.context import Context
from jobtape.schemas.errors import ResultInvalid
from jobtape.schemas.jobtype import JobType

log = logging.getLogger(__name__)

LATE = 5.0
"""Seconds beyond its time-out until a handler that does not end is given up."""


class Working(asyncio.Future[Outcome]):
    """A handler at work, seen from the worker's loop. ``cancel`` only asks (``ask``) the handler to end: as long as it
    runs it takes its place.
    """

    def __init__(self, ask: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._ask = ask

    def cancel(self, msg: Any = None) -> bool:
        """Ask; False when it has ended already."""
        if self.done():
            return False
        self._ask()
        return True

    def end_with(self, source: "asyncio.Future[Outcome] | concurrent.futures.Future[Outcome]") -> None:
        """Be done with the outcome of ``source``, which is; callable from any thread."""
        with contextlib.suppress(RuntimeError):  # the worker's loop has ended while a handler still ran
            self.get_loop().call_soon_threadsafe(self._end, source)

    def _end(self, source: "asyncio.Future[Outcome] | concurrent.futures.Future[Outcome]") -> None:
        if self.done():
            return
        if source.cancelled():
            super().cancel()
        elif (error := source.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(source.result())


class Handlers:
    """``concurrency``: how many ``def`` handlers may run at once; ``max_result``: bytes of JSON."""

    def __init__(self, *, concurrency: int, max_result: int) -> None:
        self._max_result = max_result
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="job")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="handlers", daemon=True)
        self._thread.start()

    def start(
        self, job_type: JobType, arguments: dict[str, Any], context: Context, timeout: float
    ) -> "asyncio.Future[Outcome]":
        """Begin one execution. The future never raises, and is done when no handler runs any more; cancelling it asks
        the handler to end, as cancelling a task does.

        An ``async`` handler is cancelled after ``timeout`` seconds. A thread cannot be ended: it is asked in vain.
        """
        if job_type.context_parameter is not None:
            arguments = {**arguments, job_type.context_parameter: context}
        if job_type.is_async:
            return self._begin(self._run_async(job_type, arguments, timeout))
        working = Working()
        self._threads.submit(self._run_sync, job_type, arguments).add_done_callback(working.end_with)
        return working

    def close(self) -> None:
        """Stop; what still runs is left to the end of the process."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, coroutine: Coroutine[Any, Any, Outcome]) -> "Working":
        """Run it on the handlers' loop."""
        begun: list[asyncio.Task[Outcome]] = []

        def ask() -> None:
            self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in begun])  # behind ``begin``

        working = Working(ask)

        def begin() -> None:
            begun.append(self._loop.create_task(coroutine))
            begun[0].add_done_callback(working.end_with)

        self._loop.call_soon_threadsafe(begin)
        return working

    def _run_loop(self) -> None:
        """Until it is stopped: a SystemExit in a task that a handler started also ends ``run_forever``, as if this
        were a program's main loop, and the handlers of all other jobs with it.
        """
        while True:
            try:
                return self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - the task keeps it, for whoever awaits it
                log.warning("a task that a handler started raised %r; the other jobs go on", error)

    async def _run_async(self, job_type: JobType, arguments: dict[str, Any], timeout: float) -> Outcome:
        limit = asyncio.timeout(timeout)
        try:
            with contextlib.suppress(TimeoutError):
                async with limit:
                    # Within the limit, so that it cannot be mistaken for a TimeoutError of the handler's own.
                    try:
                        value = await job_type.function(**arguments)
                    except TimeoutError as error:
                        return failure_of(error, job_type.retry, skip=1)
                    return self._success(job_type, value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return failure_of(error, job_type.retry, skip=1)
        except BaseException as error:  # noqa: BLE001 - SystemExit from a handler must not end the loop for all
            return failure_of(error, job_type.retry, skip=1)
        return timed_out(job_type, timeout)

    def _run_sync(self, job_type: JobType, arguments: dict[str, Any]) -> Outcome:
        try:
            return self._success(job_type, job_type.function(**arguments))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this job's failure
            return failure_of(error, job_type.retry, skip=1)

    def _success(self, job_type: JobType, value: Any) -> Outcome:
        try:
            result = job_type.result(value)
        except ResultInvalid as error:
            return failure("result_invalid", "ResultInvalid", str(error))
        size = len(plainjson.dumps(result))
        if size > self._max_result:
            return failure(
                "result_too_large",
                "ResultTooLarge",
                f"the result has {size} bytes of JSON, {self._max_result} are allowed: store it elsewhere and return "
                "a reference, or raise JOBTAPE_MAX_RESULT",
            )
        return Success(result)


def timed_out(job_type: JobType, timeout: float) -> Failure:
    """The failure of a handler that took too long."""
    message = f"the handler of {job_type.name} did not end within {timeout:g} s"
    return failure("timeout", "TimeoutError", message, job_type.retry.wish(TimeoutError(message)))
