"""Checks a submission against the job types and limits of this installation, and makes its order."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from jobtape.producer.service.errors import PayloadTooLarge
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.submission.limits import Limits
from jobtape.schemas import plainjson
from jobtape.schemas.errors import PayloadInvalid, SubmissionInvalid, UnknownJobType
from jobtape.schemas.flows.chains import Chain
from jobtape.schemas.flows.flow import FLOW, Fork, RecordedFlow
from jobtape.schemas.flows.follow_ups import recorded_follow_ups
from jobtape.schemas.flows.recording import OrderOf, forked_flow, recorded_flow
from jobtape.schemas.flows.references import is_reference
from jobtape.schemas.job import LONGEST_DELAY, Job, Order
from jobtape.schemas.job_types.job_type import (
    BUILTIN_PREFIX,
    BUILTIN_QUEUE,
    DEFAULT_TIMEOUT,
    RESERVED_QUEUES,
    JobTypeSpec,
)
from jobtape.schemas.job_types.secrets import SecretReferenced
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.queueing.lanes import base_of, lane_of, lane_queue, queues_with_lanes
from jobtape.schemas.submission import Submission

_NAMES_SHOWN: Final = 50


def order_for(submission: Submission, job_types: Mapping[str, JobTypeSpec], limits: Limits, now: datetime) -> Order:
    """Return the complete order. ``now``: the time from which a delay counts. Takes milliseconds for a large payload.

    Raises UnknownJobType, PayloadTooLarge, PayloadInvalid with every fault, and SubmissionInvalid for the queue, the
    timeout, the time when it is due, and for every fault of a chain.
    """
    if submission.then:
        chain = Chain(submission)
        try:
            return _flow_order(chain.submission, job_types, limits, now, depth=1)
        except PayloadInvalid as error:
            raise chain.fault(error) from None
    if submission.type == FLOW:
        return _flow_order(submission, job_types, limits, now, depth=1)
    return _order(submission, job_types, limits, now, whole=True)


def recorder(
    job_types: Mapping[str, JobTypeSpec], limits: Limits, most: int
) -> Callable[[dict[str, Any], Order], dict[str, Any]]:
    """Return what a worker of these job types records follow-ups with: ``follow_ups_for`` at the time of the call."""
    return lambda body, order: follow_ups_for(body, order, job_types, limits, most, utc_now())


def follow_ups_for(
    body: dict[str, Any], order: Order, job_types: Mapping[str, JobTypeSpec], limits: Limits, most: int, now: datetime
) -> dict[str, Any]:
    """Return what is recorded of the follow-ups that the handler of a job with this ``order`` names.

    ``body``: that of ``FollowUps``. ``most``: bytes of JSON that they may have. ``now``: from when on timeouts count.
    Raises PayloadInvalid, with every fault, and PayloadTooLarge.
    """
    _check_storable(body)
    flow = recorded_follow_ups(body, order, job_types, _order_of(job_types, limits, now, depth=1), now)
    recorded = flow.model_dump(mode="json", exclude_defaults=True)
    _check_storable(recorded)
    if (size := len(plainjson.dumps(recorded))) > most:
        raise PayloadTooLarge(
            f"the follow-ups have {size} bytes of JSON, {most} are allowed (JOBTAPE_MAX_RESULT): let one job submit "
            "a flow, or store large payloads elsewhere and pass references"
        )
    return recorded


def _order(
    submission: Submission, job_types: Mapping[str, JobTypeSpec], limits: Limits, now: datetime, *, whole: bool
) -> Order:
    """``whole``: whether the payload is complete, and not one whose references are replaced later."""
    job_type = job_types.get(submission.type)
    if job_type is None:
        raise UnknownJobType(
            f"there is no job type {submission.type!r} here; known: {names(job_types)}. JOBTAPE_JOBS names the "
            "modules that have job types"
        )
    payload = _accepted_payload(submission, job_type, limits) if whole else submission.payload
    try:
        encrypted = job_type.secrets.encrypted(payload, None if whole else is_reference)
    except SecretReferenced as error:
        raise PayloadInvalid(str(error), [{"loc": (), "msg": str(error)}]) from None
    if encrypted is not payload:
        payload = encrypted
        _check_size(payload, limits)
    declared = job_type.declared_gates
    return Order(
        type=job_type.name,
        payload=payload,
        payload_version=job_type.version,
        queue=_queue(submission, job_type, job_types),
        labels=submission.labels,
        correlation_id=submission.correlation_id,
        run_at=_run_at(submission, now),
        timeout=_timeout(submission, job_type, limits),
        max_attempts=submission.max_attempts or job_type.retry.max_attempts,
        reply_to=submission.reply_to,
        gates=declared.gates(payload, submission.labels, submission.ordering_key) if whole else None,
    )


def forked_order(
    job: Job,
    begin: str,
    payload: Any,
    so_far: Fork,
    job_types: Mapping[str, JobTypeSpec],
    limits: Limits,
    now: datetime,
) -> Order:
    """Return the order of a fork of the flow ``job`` from the node ``begin`` on. ``payload``: the new one of that node,
    or None. ``so_far``: what a fork of the whole flow would take.

    Raises PayloadInvalid and PayloadTooLarge.
    """
    old = RecordedFlow.model_validate(job.payload)
    flow = forked_flow(old, begin, payload, job_types, _order_of(job_types, limits, now, depth=1))
    runs_again = flow.graph.from_on(begin)
    kept = {name: number for name, number in so_far.taken.items() if name not in runs_again}
    flow.fork = so_far.model_copy(update={"begin": begin, "taken": kept})
    order = job.order
    assert order is not None
    return order.model_copy(update={"payload": _recorded(flow, limits), "flow": None})


def _order_of(job_types: Mapping[str, JobTypeSpec], limits: Limits, now: datetime, *, depth: int) -> OrderOf:
    """Return what makes the orders of the nodes of a flow that is ``depth`` deep in others."""

    def order_of(node: Submission, whole: bool) -> Order:
        if node.type == FLOW:
            return _flow_order(node, job_types, limits, now, depth=depth + 1)
        return _order(node, job_types, limits, now, whole=whole)

    return order_of


def _recorded(flow: RecordedFlow, limits: Limits) -> dict[str, Any]:
    payload = flow.model_dump(mode="json", exclude_defaults=True)
    _check_storable(payload)
    _check_size(payload, limits)
    return payload


def _flow_order(
    submission: Submission, job_types: Mapping[str, JobTypeSpec], limits: Limits, now: datetime, *, depth: int
) -> Order:
    for field in ("queue", "lane", "timeout", "max_attempts", "ordering_key"):
        if getattr(submission, field) is not None:
            raise _invalid(field, f"a flow has no {field}: its nodes have")
    _check_storable(submission.payload)
    _check_size(submission.payload, limits)
    flow = recorded_flow(submission.payload, job_types, _order_of(job_types, limits, now, depth=depth), depth)
    return Order(
        type=FLOW,
        payload=_recorded(flow, limits),
        queue=BUILTIN_QUEUE,
        labels=submission.labels,
        correlation_id=submission.correlation_id,
        run_at=_run_at(submission, now),
        timeout=DEFAULT_TIMEOUT,
        reply_to=submission.reply_to,
        gates=Gates(flow=True),
    )


def check_payload(payload: dict[str, Any], limits: Limits) -> None:
    """Raise PayloadInvalid for a payload that cannot be stored as JSON, and PayloadTooLarge."""
    _check_storable(payload)
    _check_size(payload, limits)


def check_signals(job: Job, payload: dict[str, Any], limits: Limits) -> None:
    """Raise PayloadTooLarge if the signals of the job's run and another one with this ``payload`` are too large.

    A job has all its signals, and each change of it writes them again, so together they may have as many bytes as one
    payload.
    """
    known = [each["payload"] for each in (job.signals or {}).values()]
    size = sum(len(plainjson.dumps(each)) for each in (*known, payload))
    if size > limits.max_payload:
        raise PayloadTooLarge(
            f"the payloads of all signals of this run have {size} bytes with this one, {limits.max_payload} are "
            "allowed (JOBTAPE_MAX_PAYLOAD): store large data elsewhere and send a reference"
        )


def _accepted_payload(submission: Submission, job_type: JobTypeSpec, limits: Limits) -> dict[str, Any]:
    check_payload(submission.payload, limits)
    accepted = job_type.accept(submission.payload)
    if accepted is not submission.payload:
        _check_size(accepted, limits)
    return accepted


def _check_storable(payload: dict[str, Any]) -> None:
    if (reason := plainjson.fault(payload)) is not None:
        message = f"the payload cannot be stored as JSON without change: {reason}"
        raise PayloadInvalid(message, [{"loc": (), "msg": reason}])


def _check_size(payload: dict[str, Any], limits: Limits) -> None:
    size = len(plainjson.dumps(payload))
    if size > limits.max_payload:
        raise PayloadTooLarge(
            f"the payload has {size} bytes, {limits.max_payload} are allowed (JOBTAPE_MAX_PAYLOAD): "
            "store large data elsewhere and send a reference"
        )


def _queue(submission: Submission, job_type: JobTypeSpec, job_types: Mapping[str, JobTypeSpec]) -> str:
    queue = base_of(submission.queue or job_type.queue)
    if submission.queue is not None:
        # Workers on a queue of the built-in jobs have no other job types, and other workers do not have these.
        known = {each.queue for each in job_types.values()} - RESERVED_QUEUES
        if job_type.queue in RESERVED_QUEUES:
            known = {job_type.queue}
        if queue not in known:
            raise _invalid("queue", f"there is no queue {submission.queue!r} here; known: {names(known)}")
    lane = job_type.lane or "normal" if submission.queue is None else lane_of(submission.queue)
    if submission.lane is not None:
        if lane_of(submission.queue or queue) not in ("normal", submission.lane):
            raise _invalid("lane", f"the queue {submission.queue} is the lane {lane}: leave out lane, or name the same")
        lane = submission.lane
    if lane == "normal" or queue in queues_with_lanes(job_types.values()):
        return lane_queue(queue, lane)
    raise _invalid(
        "lane" if submission.lane else "queue",
        f"the queue {queue} has no lanes: give one of its job types a lane, @job(..., lane='normal')",
    )


def _timeout(submission: Submission, job_type: JobTypeSpec, limits: Limits) -> float:
    if submission.timeout is None:
        return job_type.timeout
    if submission.timeout > limits.longest_timeout:
        raise _invalid(
            "timeout",
            f"a job may run {limits.longest_timeout:g} s at most, which is what fits the broker's acknowledgement "
            "timeout (JOBTAPE_ACK_TIMEOUT)",
        )
    return submission.timeout


def _run_at(submission: Submission, now: datetime) -> datetime | None:
    field = "delay" if submission.delay else "run_at"
    run_at = now + timedelta(seconds=submission.delay) if submission.delay else submission.run_at
    if run_at is not None and run_at > now + timedelta(seconds=LONGEST_DELAY):
        raise _invalid(field, "a job can be scheduled ten years ahead at most")
    return run_at


def _invalid(field: str, message: str) -> SubmissionInvalid:
    return SubmissionInvalid(message, [{"loc": (field,), "msg": message}])


def names(known: Collection[str]) -> str:
    """Return the names for an error message, without those of Jobtape itself."""
    shown = sorted(name for name in known if not name.startswith(BUILTIN_PREFIX))
    more = f" and {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
    return (", ".join(shown[:_NAMES_SHOWN]) or "none") + more
