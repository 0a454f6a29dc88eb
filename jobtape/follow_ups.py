"""What ``ctx.then`` and ``ctx.spawn`` do."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from jobtape.flows import Flow
from jobtape.jobs import JobType, Step
from jobtape.process import running
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.execution.context import Context
from jobtape.schemas.flows.flow import spawned_id
from jobtape.schemas.flows.follow_ups import CONTINUATION, MAX_DEPTH, FollowUps, Signal
from jobtape.schemas.flows.graph import On, Stop
from jobtape.schemas.job import FlowNode, Job, JobState
from jobtape.schemas.submission import Options, Spawned, Submission

_KEY: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


def follow_ups(
    job_type: JobType[Any],
    children: Mapping[str, Step] | Iterable[Step] = (),
    *,
    wait: Signal | Sequence[Signal] = (),
    on: On = "success",
    stop: Stop = "end",
    options: Options | None = None,
    **kwargs: Any,
) -> FollowUps:
    """Return what a handler returns that ends with follow-ups: see ``Context.then``.

    Raises PayloadInvalid and ValueError for arguments that do not fit.
    """
    named = isinstance(children, Mapping)
    steps = dict(children) if isinstance(children, Mapping) else {str(n): each for n, each in enumerate(children)}
    signals = [wait] if isinstance(wait, Signal) else list(wait)
    flow = Flow(stop=stop)
    if CONTINUATION in steps or CONTINUATION in (signal.name for signal in signals):
        raise ValueError(f"the name {CONTINUATION!r} is that of the job that goes on: give this one another name")
    before = [
        flow.add(each.job_type, *each.args, node=name, options=each.options, **each.kwargs)
        for name, each in steps.items()
    ]
    handles = [flow.wait(signal.name, timeout=signal.timeout) for signal in signals]
    known = job_type.payload_model.model_fields
    if steps and "results" in known and "results" not in kwargs:
        results = [handle.result for handle in before]
        kwargs["results"] = dict(zip(steps, results, strict=True)) if named else results
    if handles and "signal" in known and "signal" not in kwargs:
        kwargs["signal"] = handles[0].result
    if handles and "signals" in known and "signals" not in kwargs:
        kwargs["signals"] = {handle.name: handle.result for handle in handles}
    flow.add(job_type, node=CONTINUATION, after=[*before, *handles], on=on, options=options, **kwargs)
    return FollowUps(flow.body())


async def spawn(context: Context, job_type: JobType[Any], args: tuple[Any, ...], key: str, kwargs: Any) -> Job:
    """Submit the job of a handler: see ``Context.spawn``."""
    submission, spawned, causation = _spawned(context, job_type, args, key, dict(kwargs))
    if context.shadow:
        return _not_submitted(submission, spawned)
    return await running.installation_for(job_type.name).submit(submission, None, causation, spawned)


def spawn_sync(context: Context, job_type: JobType[Any], args: tuple[Any, ...], key: str, kwargs: Any) -> Job:
    """Submit the job of a handler, and block the thread: see ``Context.spawn_sync``."""
    submission, spawned, causation = _spawned(context, job_type, args, key, dict(kwargs))
    if context.shadow:
        return _not_submitted(submission, spawned)
    return running.installation_for(job_type.name).submit_sync(submission, None, causation, spawned)


def _spawned(
    context: Context, job_type: JobType[Any], args: tuple[Any, ...], key: str, kwargs: dict[str, Any]
) -> tuple[Submission, Spawned, str | None]:
    if not _KEY.fullmatch(key):
        raise ValueError(f"a key of ctx.spawn has letters, digits, _, . and -, at most 64: not {key!r}")
    if context.depth >= MAX_DEPTH:
        message = (
            f"the job is below {context.depth} others already, and jobs may be spawned {MAX_DEPTH} deep: call submit "
            "instead of ctx.spawn"
        )
        raise PayloadInvalid(message, [])
    options: Options = kwargs.pop("options", None) or Options()
    if options.idempotency_key is not None:
        raise ValueError("ctx.spawn takes no idempotency key: its key does the same")
    submission = job_type.submission(options, *args, **kwargs)
    place = FlowNode(id=context.job_id, node=key, depth=context.depth + 1)
    return submission, Spawned(spawned_id(context.job_id, context.run, key), place), context.event_id


def _not_submitted(submission: Submission, spawned: Spawned) -> Job:
    """Return what a shadow run gets instead of a job."""
    return Job(spawned.id, submission.type, JobState.HELD, 1, 1, payload=submission.payload, flow=spawned.flow.id)
