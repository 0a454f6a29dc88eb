"""Filters of events and job lists: as keyword arguments, and as query parameters of the API."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

from jobtape.jobs import JobType
from jobtape.schemas import plainjson
from jobtape.schemas.job import JobState

Query = Sequence[tuple[str, str]]
"""The query parameters of a URL."""
Words = str | Iterable[str]
Types = str | JobType[Any] | Iterable[str | JobType[Any]]
States = JobState | str | Iterable[JobState | str]


class EventFilters(TypedDict, total=False):
    """Filters of events. An event must match all filters; one value of several given for a filter is enough.

    See ``schemas.filters.selection.Selection``.
    """

    events: Words
    types: Types
    job: str
    labels: Mapping[str, str]
    correlation_id: str


class JobFilters(TypedDict, total=False):
    """Filters of job lists. A job must match all filters; one value of several given for a filter is enough.

    All labels must match. Times need a UTC offset. ``error``: part of the error's type or message. ``flow``: the id of
    a flow, or of a job with follow-ups; ``node``: the name of one of its nodes. ``payload`` and ``result``: values by
    their paths, such as ``{"customer.id": 42}``.
    """

    types: Types
    states: States
    queues: Words
    labels: Mapping[str, str]
    reasons: Words
    failures: Words
    since: datetime
    until: datetime
    error: str
    flow: str
    node: str
    payload: Mapping[str, Any]
    result: Mapping[str, Any]


_NAMES = {
    "events": "event",
    "types": "type",
    "states": "state",
    "queues": "queue",
    "reasons": "reason",
    "failures": "failure",
    "labels": "label",
}


def query_of(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the filters as query parameters."""
    query: list[tuple[str, str]] = []
    for name, given in filters.items():
        if name in ("payload", "result"):
            query += [(f"{name}.{path}" if path else name, _text(value)) for path, value in given.items()]
            continue
        query += [(_NAMES.get(name, name), value) for value in _values(given)]
    return query


def _text(value: Any) -> str:
    return value if isinstance(value, str) else plainjson.dumps(value).decode()


def _values(given: Any) -> list[str]:
    match given:
        case None:
            return []
        case str():  # also JobState
            return [str(given)]
        case JobType():
            return [given.name]
        case datetime():
            return [given.isoformat()]
        case Mapping():
            return [f"{name}:{value}" for name, value in given.items()]
    return [value for one in given for value in _values(one)]
