"""Finds effects that a handler has twice when its job is executed twice."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from jobtape.jobs import JobType
from jobtape.testing.opening import memory

Effect = Callable[[], Any]
"""Returns what the handler has done so far, in a form that can be compared; a coroutine function may too."""


async def assert_idempotent(
    handler: JobType[Any],
    /,
    *args: Any,
    effect: Effect | None = None,
    others: Iterable[JobType[Any]] = (),
    **kwargs: Any,
) -> None:
    """Execute a job with these arguments, then execute it again as after a lost acknowledgement, in memory.

    Raises AssertionError if ``effect()`` returns something else after the second execution than after the first, such
    as the number of mails that were sent, or if the handler has submitted more jobs. ``others``: the job types that
    it submits. Raises AssertionError too if the first execution has not
    succeeded, and what ``submit`` raises.
    """
    async with memory([handler, *others]) as jt:
        job = await handler.submit(*args, **kwargs)
        await jt.drain()
        first = jt[job]
        if first.state != "succeeded":
            error = f"{first.error.type}: {first.error.message}" if first.error else f"the job is {first.state}"
            raise AssertionError(f"the first execution of {handler.name} has not succeeded: {error}")
        before, jobs_before = await _value(effect), [each.id for each in jt.jobs()]
        jt.redeliver(job)
        await jt.drain()
        after, more = await _value(effect), [each for each in jt.jobs() if each.id not in jobs_before]
    if more:
        raise AssertionError(
            f"the second execution of {handler.name} submitted {more[0].type} again: use "
            "`await ctx.spawn(job_type, ..., key=...)`, which submits once in each run"
        )
    if before != after:
        raise AssertionError(
            f"the second execution of {handler.name} had an effect again: {before!r} became {after!r}. Make it "
            "conditional, by ctx.idempotency_key or `ctx.once(session)`"
        )


async def _value(effect: Effect | None) -> Any:
    found = None if effect is None else effect()
    return await found if inspect.isawaitable(found) else found
