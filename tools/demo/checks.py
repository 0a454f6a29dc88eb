"""What must hold for every job, whatever it did: its state, its history, and that the history folds into the state."""

from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from jobtape.schemas import events, fold
from tools.demo.orders import Order, expect

SAME = ("id", "type", "state", "payload", "result", "error", "progress", "queue", "labels", "run", "attempt")
ALSO = ("max_attempts", "submitted_at", "run_at", "started_at", "finished_at", "correlation_id", "cursor")


def check_job(order: Order, job: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """What was found right, in a few words; raises Wrong. ``job`` and ``history`` as the API gives them."""
    check_state(order, job)
    found = order.check(job)
    check_history(order, job, history)
    return found


def check_state(order: Order, job: dict[str, Any]) -> None:
    """The job is the one that was ordered, and closed as it should be, in one attempt."""
    reason = f" ({job['error']['type']}: {job['error']['message']})" if job["error"] else ""
    expect(job["state"] == order.state, f"its state is {job['state']}, not {order.state}{reason}")
    expect((job["type"], job["payload"]) == (order.type, order.payload), "it is not what was ordered")
    expect((job["run"], job["attempt"]) == (1, 1), f"run {job['run']}, attempt {job['attempt']}")
    moments = [_moment(job[name]) for name in ("submitted_at", "started_at", "finished_at")]
    expect(None not in moments, f"a time is missing: {moments}")


def check_history(order: Order, job: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """From ``submitted`` to the end, cursors rising, and folded by itself it is the job that GET shows."""
    names = [event["type"].removeprefix(events.TYPE_PREFIX) for event in history]
    expect(names, "it has no history")
    expect((names[0], names[-1]) == ("submitted", order.state), f"its history is {' '.join(names)}")
    cursors = [event["cursor"] for event in history]
    expect(all(one < two for one, two in pairwise(cursors)), f"cursors don't rise: {cursors}")
    # A worker that dies hands its jobs to another, which starts over: progress rises within each execution.
    delivered: defaultdict[str, list[float]] = defaultdict(list)
    for event in history:
        if event["type"].endswith(".progressed"):
            delivered[event["data"]["execution"]].append(event["data"]["fraction"])
    expect(all(one == sorted(one) for one in delivered.values()), f"its progress goes back: {dict(delivered)}")
    folded = fold.fold((events.parse(event), event["cursor"]) for event in history)
    expect(list(folded) == [job["id"]], f"the history is of {list(folded)}")
    mine = asdict(folded[job["id"]])
    for name in SAME + ALSO:
        expect(_plain(mine[name]) == _plain(job[name]), f"{name}: GET shows {job[name]!r}, the fold {mine[name]!r}")


def _plain(value: Any) -> Any:
    """What can be compared: the text of a state, a dict for a model, a moment for a time however it is written."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, StrEnum):
        return value.value
    return _moment(value) or value if isinstance(value, str | datetime) else value


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str) and len(value) >= 20 and value[4:5] == "-":
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) else None
