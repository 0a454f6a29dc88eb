"""Strategies for any plain JSON, order and event that the schema accepts, whether or not they make sense."""

from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from pydantic import TypeAdapter

from jobtape.schemas import events, plainjson
from jobtape.schemas.job import ErrorInfo, FlowNode, Order
from jobtape.schemas.queueing.gates import Gates, Limit
from tests.schemas.events_of_a_job import JOB, at

text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
plain_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-plainjson.INT_LIMIT, plainjson.INT_LIMIT - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
plain_json: st.SearchStrategy[Any] = st.recursive(
    plain_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)
# Few different times, runs, attempts and executions, so that they meet.
times: st.SearchStrategy[datetime] = st.integers(0, 9).map(at)
errors = st.builds(ErrorInfo, type=text, message=text, traceback=st.none() | text)
reasons = st.sampled_from(["error", "timeout", "crash_loop", "unknown_type", "payload_invalid", "lost"])
limits = st.builds(
    Limit,
    name=st.sampled_from(["add", "mail"]),
    key=text,
    at_most=st.integers(1, 3),
    per=st.none() | st.floats(0.1, 60),
)
gates = st.builds(
    Gates,
    ordering_key=st.none() | text,
    hold=st.booleans(),
    limits=st.lists(limits, max_size=2).map(tuple),
    turn=text,
)
orders = st.builds(
    Order,
    type=st.sampled_from(["add", "email.send"]),
    payload=st.dictionaries(text, plain_json, max_size=3),
    payload_version=st.integers(1, 3),
    queue=st.just("default"),
    labels=st.dictionaries(text, text, max_size=2),
    correlation_id=st.none() | text,
    run_at=st.none() | times,
    timeout=st.floats(0.1, 1e6),
    max_attempts=st.integers(1, 2**31 - 1),
    reply_to=st.none() | text,
    gates=st.none() | gates,
    flow=st.none() | st.builds(FlowNode, id=st.just(JOB), node=text, item=st.none() | st.integers(0, 3)),
)
_small = st.integers(1, 3)
_common: dict[str, st.SearchStrategy[Any]] = {
    "job_type": st.sampled_from(["add", "email.send"]),
    "run": _small,
    "attempt": _small,
}
_executions = st.sampled_from(["a", "b", "c", events.FLOW_EXECUTION])
_defer_reasons = st.sampled_from(["unknown_type", "queue_full", "expired", "maxlen"])
_own: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "submitted": {"order": orders},
    "started": {"execution": _executions, "worker": text},
    "progressed": {
        "execution": _executions,
        "n": _small,
        "fraction": st.floats(0, 1),
        "message": st.none() | text,
    },
    "continued": {
        "execution": _executions,
        "worker": text,
        "started_at": times,
        "duration": st.floats(0, 1e9),
        "follow_ups": st.dictionaries(text, plain_json, max_size=2),
    },
    "signalled": {
        "signal": st.sampled_from(["approved", "paid"]),
        "payload": st.none() | st.dictionaries(text, plain_json, max_size=2),
        "timed_out": st.booleans(),
    },
    "retrying": {
        "execution": _executions,
        "error": errors,
        "reason": reasons,
        "next_at": times,
    },
    "succeeded": {
        "execution": _executions,
        "worker": text,
        "result": plain_json,
        "started_at": times,
        "duration": st.floats(0, 1e9),
    },
    "failed": {
        "error": errors,
        "reason": reasons,
        "execution": st.none() | _executions,
        "worker": st.none() | text,
        "started_at": st.none() | times,
        "duration": st.none() | st.floats(0, 1e9),
    },
    "cancelled": {
        "reason": st.none() | st.sampled_from(["duplicate", "replaced", "debounced"]),
        "duplicate_of": st.none() | st.just(JOB),
    },
    "redriven": {},
    "released": {},
    "placed": {
        "n": _small,
        "why": st.sampled_from(["due", "lost", "given_up"]),
        "lost_execution": st.none() | _executions,
        "deferred": st.none() | _defer_reasons,
        "deferred_since": st.none() | times,
        "fence": st.none() | _small,
        "order": orders,
    },
    "deferred": {"n": _small, "reason": _defer_reasons, "until": times, "since": times},
}
_ADAPTER: TypeAdapter[events.JobEvent] = events.ADAPTER


@st.composite
def any_event(draw: st.DrawFn, job: str = JOB) -> events.JobEvent:
    """One event of any class, parsed from plain values."""
    name = draw(st.sampled_from(events.EVENT_NAMES))
    return _ADAPTER.validate_python(
        {
            "type": events.TYPE_PREFIX + name,
            "id": draw(st.text("abc/123", min_size=1, max_size=255)),
            "source": "/jobtape/test",
            "subject": job,
            "time": draw(times),
            "correlationid": draw(st.none() | text),
            "causationid": draw(st.none() | text),
            "traceparent": draw(st.none() | text),
            "sampled": draw(st.sampled_from((None, False, True))),
            "data": {field: draw(values) for field, values in {**_common, **_own[name]}.items()},
        }
    )
