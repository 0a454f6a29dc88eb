"""What the view counts, as sums to which each event adds: jobs by state, events, and how long jobs waited and ran.

Theory of operation. Nothing is counted by reading rows. What an accepted event adds depends on the job before and after
it only, so the sums do not depend on the batches in which events are folded, and each batch is one upsert. A sum by
minute uses the time of the event, so a rebuild finds the same minute.

Minutes become hours after some days, and hours are dropped after some weeks (``Ages``), so the table stays small. That
happens when rows are written, and the pruner does it to older rows. Nobody reads the minutes of a time that may be in
hours, so it does not matter when it happens.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from jobtape.schemas.events import EVENT_NAMES, Failed, JobEvent, Retrying, Started, Succeeded
from jobtape.schemas.failure_group import FailureGroup, group_of
from jobtape.schemas.job import FINAL, Job, JobState

STATE: Final = "state "
"""Before a job's state: the measure of the jobs that are in it now."""
WAIT: Final = "wait"
RUN: Final = "run"
ALWAYS: Final = 0
"""The minute of sums over all time."""
MINUTES_KEPT: Final = 2 * 86_400
"""Seconds for which minutes stay minutes."""
HOURS_KEPT: Final = 35 * 86_400
"""Seconds for which hours are kept."""
_EVENTS: Final = frozenset(EVENT_NAMES)
_SHORTEST: Final = 39
"""The bucket of all durations below 1.024 ms."""


class TallyKey(NamedTuple):
    """What is summed.

    ``measure`` and ``bucket``: ``state <state>``, the jobs in that state whose submission is known, with
    ``failure_bucket`` of a failed one; the name of an event, the accepted events, with ``failure_bucket`` of a failure;
    ``wait`` and ``run``, durations, with ``duration_bucket``. ``minute``: since 1970, of the event; ``ALWAYS`` for
    states, and for the events of all time. ``queue`` is empty if it is not known, and for the events of all time.
    """

    measure: str
    minute: int
    type: str
    queue: str
    bucket: int = 0


@dataclass(frozen=True, slots=True)
class FailureSpan:
    """A group of failures with the times of its first and its last event."""

    group: FailureGroup
    first: datetime
    last: datetime


class Tally:
    """Collects what a batch adds. Call ``add`` for each accepted event, and ``move`` for each job at the end."""

    def __init__(self) -> None:
        # By plain tuples, which are made in a third of the time.
        self._sums: defaultdict[tuple[str, int, str, str, int], int] = defaultdict(int)
        self._failures: dict[str, FailureSpan] = {}

    def add(self, before: Job | None, event: JobEvent, after: Job) -> None:
        """Add an accepted event. ``before`` and ``after``: its job."""
        sums, job_type, queue = self._sums, after.type, after.queue or ""
        minute = int(event.time.timestamp()) // 60
        bucket = 0
        if isinstance(event, Failed | Retrying):
            group = group_of(event.data.job_type, event.data.reason, event.data.error)
            bucket = failure_bucket(group.id)
            self._extend(FailureSpan(group, event.time, event.time))
        sums[event.name, minute, job_type, queue, bucket] += 1
        if isinstance(event, Started):
            started: datetime | None = event.time
        elif isinstance(event, Succeeded | Failed):
            started = event.data.started_at
            if event.data.duration is not None:
                sums[RUN, minute, job_type, queue, duration_bucket(event.data.duration)] += 1
        else:
            return
        if started is not None and before is not None and _begins(before, event):
            assert before.run_at is not None
            sums[WAIT, minute, job_type, queue, duration_bucket((started - before.run_at).total_seconds())] += 1

    def move(self, before: Job | None, after: Job | None) -> None:
        """Add a job to its state, and take it from its state before. None: it is not in the view."""
        for job, n in ((before, -1), (after, 1)):
            if job is not None and job.submitted_at is not None:
                self._sums[state_key(job.state, job.type, job.queue, job.failure)] += n

    def sums(self) -> dict[TallyKey, int]:
        """Return what is to be added."""
        found: defaultdict[TallyKey, int] = defaultdict(int)
        for (measure, minute, job_type, queue, bucket), n in self._sums.items():
            found[TallyKey(measure, minute, job_type, queue, bucket)] += n
            if measure in _EVENTS:
                found[TallyKey(measure, ALWAYS, job_type, "")] += n
        return {key: n for key, n in found.items() if n}

    def failures(self) -> list[FailureSpan]:
        """Return the groups of the failures."""
        return list(self._failures.values())

    def _extend(self, span: FailureSpan) -> None:
        known = self._failures.get(span.group.id, span)
        self._failures[span.group.id] = FailureSpan(
            span.group, min(known.first, span.first), max(known.last, span.last)
        )


def _begins(before: Job, event: Started | Succeeded | Failed) -> bool:
    """Return whether the event is the first of an execution since the job was due last."""
    return (
        before.run_at is not None
        and before.state is not JobState.RUNNING
        and before.state not in FINAL
        and (event.data.run, event.data.attempt) == (before.run, before.attempt_due)
    )


@dataclass(frozen=True, slots=True)
class Ages:
    """What is kept at a time (seconds since 1970): minutes from the minute ``fine`` on, before it hours, from
    ``oldest`` on. Both begin an hour.
    """

    now: float

    @property
    def fine(self) -> int:
        return int(self.now - MINUTES_KEPT) // 3600 * 60

    @property
    def oldest(self) -> int:
        return int(self.now - HOURS_KEPT) // 3600 * 60

    def rows(self, sums: Mapping[TallyKey, int]) -> list[tuple[str, int, str, str, int, int]]:
        """Return the rows of table ``tally`` for ``sums``, sorted, each key once."""
        fine, oldest = self.fine, self.oldest
        found: defaultdict[tuple[str, int, str, str, int], int] = defaultdict(int)
        for (measure, minute, job_type, queue, bucket), n in sums.items():
            if minute == ALWAYS or minute >= oldest:
                kept = minute if minute >= fine else minute - minute % 60
                found[measure, kept, job_type, queue, bucket] += n
        return [(*key, n) for key, n in sorted(found.items())]


def state_key(state: str, job_type: str, queue: str | None, failure: str | None) -> TallyKey:
    """Return the key of the sum of jobs to which a job with a known submission belongs."""
    bucket = failure_bucket(failure) if failure and state == JobState.FAILED else 0
    return TallyKey(STATE + state, ALWAYS, job_type, queue or "", bucket)


def failure_bucket(group_id: str) -> int:
    """Return the bucket of a failure group, which is never 0 in practice."""
    return int(group_id, 16)


def failure_id(bucket: int) -> str:
    """Return the id of the failure group of a bucket."""
    return f"{bucket:012x}"


def duration_bucket(seconds: float) -> int:
    """Return the bucket of a duration. Four buckets double it."""
    microseconds = min(max(1, int(seconds * 1e6)), 2**62)
    # The integer part of 4·log2, without the rounding of floats, which differs between machines.
    return max(_SHORTEST, (microseconds**4).bit_length() - 1)


def duration_of(bucket: int) -> float:
    """Return the duration (seconds) in the middle of a bucket: at most 9 % off. For the shortest, 1 ms."""
    return 0.001 if bucket <= _SHORTEST else 2 ** ((bucket + 0.5) / 4) / 1e6


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the duration (seconds) that ``share`` of the durations do not exceed; None when there are none."""
    left = share * sum(buckets.values())
    for bucket, n in sorted(buckets.items()):
        left -= n
        if left <= 0 and n > 0:
            return duration_of(bucket)
    return None
