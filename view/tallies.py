"""What the view counts, as sums to which each event adds: jobs by state, events, and how long jobs waited and ran.

Theory of operation. Nothing is counted by reading rows. What an accepted event adds depends on the job before and after
it only, so the sums do not depend on the batches in which events are folded, and each batch is one upsert. A sum by
minute uses the time of the event, so a rebuild finds the same minute.

Minutes become hours after a day, and hours are dropped after some weeks (``Ages``), so the table stays small. That
happens when rows are written, and the pruner does it to older rows. Nobody reads the minutes of a time that may be in
hours, so it does not matter when it happens.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import frexp
from typing import Final

from jobtape.schemas.events import EVENT_NAMES, Failed, JobEvent, Retrying, Started, Succeeded
from jobtape.schemas.execution.failure_group import FailureGroup, group_of
from jobtape.schemas.job import FINAL, Job, JobState
from jobtape.schemas.queueing.gates import Gates

STATE: Final = "state "
"""Before a job's state: the measure of the jobs that are in it now."""
HELD: Final = "held "
"""Before the name of a gate: the measure of the jobs that are held now and may have to wait for it."""
FOLLOW_UPS: Final = "follow-ups of the job"
"""What a held job waits for that has follow-ups. No limit has this name."""
WAIT: Final = "wait"
RUN: Final = "run"
ALWAYS: Final = 0
"""The minute of sums over all time."""
MINUTES_KEPT: Final = 26 * 3600
"""Seconds for which minutes stay minutes: a day, and two hours because clocks differ and hours are whole."""
HOURS_KEPT: Final = 35 * 86_400
"""Seconds for which hours are kept."""
_EVENTS: Final = frozenset(EVENT_NAMES)
_STATES: Final[dict[str, str]] = {state: STATE + state for state in JobState}
# Names of this module: an attribute of an enumeration is slow to look up.
_RETRYING: Final = JobState.RETRYING
_FAILED: Final = JobState.FAILED
_HELD: Final = JobState.HELD
_BEGUN: Final = FINAL | {JobState.RUNNING}
_MINUTE: Final = timedelta(minutes=1)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
SHORTEST: Final = 2.0**-10
"""Seconds: all shorter durations count as one."""
_HALF_STEP: Final = 2.0**-0.5


TallyKey = tuple[str, int, str, str, int]
"""What is summed: (measure, minute, type, queue, bucket). A plain tuple, because there are some for each event.

``measure`` and ``bucket``: ``state <state>``, the jobs in that state whose submission is known, with ``failure_bucket``
of a failed one; ``held <gate>``, the held jobs that may have to wait for a gate; the name of an event, the accepted
events, with ``failure_bucket`` of a failure; ``wait`` and ``run``, durations, with ``duration_bucket``; otherwise the
bucket is 0. ``minute``: since 1970, of the event; ``ALWAYS`` for states and gates, and for the events of all time.
``queue`` is empty if it is not known, for gates, and for the events of all time.
"""


@dataclass(frozen=True, slots=True)
class FailureSpan:
    """A group of failures with the times of its first and its last event. ``newest``: the highest cursor of one."""

    group: FailureGroup
    first: datetime
    last: datetime
    newest: int


class Tally:
    """Collects what a batch adds. Call ``add`` for each accepted event, and ``move`` for each job at the end."""

    def __init__(self) -> None:
        self._sums: defaultdict[TallyKey, int] = defaultdict(int)
        self._failures: dict[str, FailureSpan] = {}
        # The minute of the event before, with the times at which it begins and ends: most events are in the same one.
        self._minute, self._begin, self._end = 0, _NEVER, _NEVER

    def add(self, before: Job | None, event: JobEvent, after: Job) -> None:
        """Add an accepted event. ``before`` and ``after``: its job."""
        sums, time = self._sums, event.time
        if not self._begin <= time < self._end:
            self._minute = int(time.timestamp()) // 60
            self._begin = datetime.fromtimestamp(self._minute * 60, UTC)
            self._end = self._begin + _MINUTE
        minute, job_type, queue = self._minute, after.type, after.queue or ""
        bucket = 0
        # Not isinstance, which takes a microsecond for a class of pydantic.
        if type(event) is Failed or type(event) is Retrying:
            group = group_of(event.data.job_type, event.data.reason, event.data.error)
            bucket = failure_bucket(group.id)
            self._extend(FailureSpan(group, time, time, after.cursor))
        sums[event.name, minute, job_type, queue, bucket] += 1
        if type(event) is Started:
            started: datetime | None = time
        elif type(event) is Succeeded or type(event) is Failed:
            started, duration = event.data.started_at, event.data.duration
            if duration is not None:
                sums[RUN, minute, job_type, queue, duration_bucket(duration)] += 1
        else:
            return
        if before is not None and started is not None and (due := _due(before, event)) is not None:
            sums[WAIT, minute, job_type, queue, duration_bucket((started - due).total_seconds())] += 1

    def move(self, before: Job | None, after: Job | None) -> None:
        """Add a job to its state, and take it from its state before. None: it is not in the view."""
        for job, n in ((before, -1), (after, 1)):
            if job is not None and job.submitted_at is not None:
                self._sums[state_key(job.state, job.type, job.queue, job.failure)] += n
                if job.state is _HELD and not job.imported:
                    for key in held_keys(job.type, job.gates, follows=job.awaits_follow_ups):
                        self._sums[key] += n

    def sums(self) -> dict[TallyKey, int]:
        """Return what is to be added."""
        found = {key: n for key, n in self._sums.items() if n}
        for (measure, _, job_type, _, _), n in [each for each in found.items() if each[0][0] in _EVENTS]:
            total = (measure, ALWAYS, job_type, "", 0)
            found[total] = found.get(total, 0) + n
        return found

    def failures(self) -> list[FailureSpan]:
        """Return the groups of the failures."""
        return list(self._failures.values())

    def _extend(self, span: FailureSpan) -> None:
        known = self._failures.get(span.group.id, span)
        self._failures[span.group.id] = FailureSpan(
            span.group, min(known.first, span.first), max(known.last, span.last), max(known.newest, span.newest)
        )


def _due(before: Job, event: Started | Succeeded | Failed) -> datetime | None:
    """Return when the attempt was due; None if the event is not the first of an execution since then."""
    state, data, due = before.state, event.data, before.attempt
    if state is _RETRYING:
        due += 1
    elif state in _BEGUN:
        return None
    return before.run_at if data.attempt == due and data.run == before.run else None


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
        if all(minute >= fine or minute == ALWAYS for _, minute, _, _, _ in sums):
            return [(*key, sums[key]) for key in sorted(sums)]  # as of all batches that are not late
        found: defaultdict[TallyKey, int] = defaultdict(int)
        for (measure, minute, job_type, queue, bucket), n in sums.items():
            if minute == ALWAYS or minute >= oldest:
                kept = minute if minute >= fine else minute - minute % 60
                found[measure, kept, job_type, queue, bucket] += n
        return [(*key, found[key]) for key in sorted(found)]


def state_key(state: str, job_type: str, queue: str | None, failure: str | None) -> TallyKey:
    """Return the key of the sum of jobs to which a job with a known submission belongs."""
    bucket = failure_bucket(failure) if failure and state == _FAILED else 0
    return _STATES[state], ALWAYS, job_type, queue or "", bucket


def held_keys(job_type: str, gates: Gates | None, *, follows: bool) -> list[TallyKey]:
    """Return the keys of the sums to which a held job with a known submission belongs. ``follows``: whether it waits
    for its follow-ups.
    """
    if follows:
        names: tuple[str, ...] = (FOLLOW_UPS,)
    else:
        names = () if gates is None or gates.rule or gates.flow else gates.waits_for()
    return [(HELD + name, ALWAYS, job_type, "", 0) for name in names]


def failure_bucket(group_id: str) -> int:
    """Return the bucket of a failure group, which is never 0 in practice."""
    return int(group_id, 16)


def failure_id(bucket: int) -> str:
    """Return the id of the failure group of a bucket."""
    return f"{bucket:012x}"


def duration_bucket(seconds: float) -> int:
    """Return the bucket of a duration: 0 for less than ``SHORTEST``, and of the others two for each doubling."""
    if seconds < SHORTEST:
        return 0
    mantissa, exponent = frexp(seconds)  # exact, unlike a logarithm, so it is the same on each machine
    return 2 * (exponent + 9) + (2 if mantissa >= _HALF_STEP else 1)


def duration_of(bucket: int) -> float:
    """Return the duration (seconds) in the middle of a bucket: at most 19 % off. 1 ms for the shortest."""
    return SHORTEST * 2 ** ((bucket - 0.5) / 2) if bucket else 0.001


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the duration (seconds) that ``share`` of the durations do not exceed; None when there are none."""
    left = share * sum(buckets.values())
    for bucket, n in sorted(buckets.items()):
        left -= n
        if left <= 0 and n > 0:
            return duration_of(bucket)
    return None
