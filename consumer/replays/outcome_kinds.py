"""How two outcomes of a job differ, in kinds: where in the JSON, and from what to what.

Jobs with the same kind of difference probably have the same cause. So a kind names no number and no text of a job:
``result.items[].price: number → text``. ``true``, ``false``, ``null`` and the types of errors name themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from jobtape.consumer.outcome import Failure, NamedFollowUps, Outcome
from jobtape.schemas.job import Job, JobState

MOST: Final = 20
"""Differences of one job that are looked at."""
ABSENT: Final = "absent"


@dataclass(frozen=True, slots=True)
class Change:
    """A difference.

    ``path``: the place in the JSON, with ``[]`` for each position in a list, and ``""`` for the outcome as a whole.
    ``then`` and ``now``: what was and is there, in general. ``values``: the values themselves, by these
    names, without those that are absent.
    """

    path: str
    then: str
    now: str
    values: dict[str, Any]


def changes(job: Job, now: Outcome) -> list[Change]:
    """Return how ``now`` differs from the outcome of ``job``, each kind once, at most ``MOST``; none if it does not.

    Errors differ by their types only.
    """
    if isinstance(now, NamedFollowUps) or job.follow_ups is not None:
        return _changed_end(job, now)
    then_error = None if job.state is JobState.SUCCEEDED else job.error.type if job.error else str(job.state)
    now_error = now.error.type if isinstance(now, Failure) else None
    if then_error is not None or isinstance(now, Failure):
        then_text = f"{then_error}: {job.error.message}" if then_error and job.error else job.result
        now_text = f"{now_error}: {now.error.message}" if isinstance(now, Failure) else now.result
        whole = Change("", then_error or "succeeded", now_error or "succeeded", {"then": then_text, "now": now_text})
        return [] if then_error == now_error else [whole]
    found: dict[tuple[str, str, str], Change] = {}
    for path, one, other in _differences(job.result, now.result, "result"):
        kind = (path, _kind(one), _kind(other))
        values = {name: value for name, value in (("then", one), ("now", other)) if value is not _Absent}
        found.setdefault(kind, Change(*kind, values))
        if len(found) == MOST:
            break
    return list(found.values())


def _changed_end(job: Job, now: Outcome) -> list[Change]:
    """Return how the ends of two handlers differ of which at least one named follow-ups. These are not compared."""
    then_text, now_text = (
        "follow-ups" if continued else "an outcome"
        for continued in (job.follow_ups is not None, isinstance(now, NamedFollowUps))
    )
    return [] if then_text == now_text else [Change("", then_text, now_text, {"then": then_text, "now": now_text})]


class _Absent:
    """What a list or an object does not have."""


def _differences(then: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, then, now) for each place with different values, in the order of the JSON."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in [*then, *(name for name in now if name not in then)]:
            yield from _differences(then.get(name, _Absent), now.get(name, _Absent), f"{path}.{name}")
    elif isinstance(then, list) and isinstance(now, list):
        for n in range(max(len(then), len(now))):
            one, other = (each[n] if n < len(each) else _Absent for each in (then, now))
            yield from _differences(one, other, f"{path}[]")
    elif type(then) is not type(now) or then != now:
        yield path, then, now


def _kind(value: Any) -> str:
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return "text"
        case int() | float():
            return "number"
        case list():
            return "list"
        case dict():
            return "object"
    return ABSENT
