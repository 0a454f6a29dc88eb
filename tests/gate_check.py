"""Check on the tape alone that gates were kept: order, limits, rates, unique and debounce keys. Independent of
``schemas.queueing.gates`` and ``schemas.keyed_runs``.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from jobtape.schemas import fold
from jobtape.schemas.events import JobEvent
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.queueing.gates import Limit


def gate_problems(events: Iterable[tuple[JobEvent, int]]) -> list[str]:
    """Return what is wrong with the placements of held jobs. ``events``: the tape, with cursors."""
    problems: list[str] = []
    jobs: dict[str, Job] = {}
    ordered: defaultdict[str, dict[str, int]] = defaultdict(dict)
    """By ordering key, the cursor of the submission of each held job."""
    keys: dict[str, str] = {}
    slots: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    times: defaultdict[Limit, list[datetime]] = defaultdict(list)
    unique = _UniqueKeys(problems)
    for event, cursor in events:
        before = jobs.get(event.subject)
        job = jobs[event.subject] = fold.evolve(before, event, cursor)
        if job is before or job.gates is None:
            continue
        unique.read(event, cursor, job)
        key = job.gates.ordering_key
        if before is not None and before.state is JobState.HELD and event.name == "placed":
            if key is not None:
                if key in keys.values():
                    problems.append(f"{job.id} was placed while another job had the ordering key {key}")
                if ordered[key][job.id] > min(ordered[key].values()):
                    problems.append(f"{job.id} was placed before an earlier job with the ordering key {key}")
            for limit in job.gates.limits:
                if limit.per is not None:
                    times[limit].append(event.time)
                elif len(slots[limit.name, limit.key]) >= limit.at_most:
                    problems.append(f"{job.id} was placed above the limit {limit}")
        open_run = not job.final and job.state is not JobState.HELD
        for limit in job.gates.limits:
            (slots[limit.name, limit.key].add if open_run else slots[limit.name, limit.key].discard)(job.id)
        if key is not None:
            if event.name == "submitted" or job.id not in ordered[key]:
                ordered[key].setdefault(job.id, cursor)
            if job.state is not JobState.HELD:
                ordered[key].pop(job.id, None)
            if open_run or (job.state is JobState.FAILED and job.has_slots):
                keys[job.id] = key
            else:
                keys.pop(job.id, None)
    for limit, placed in times.items():
        for first, last in zip(placed, placed[limit.at_most :], strict=False):
            if limit.per is not None and (last - first).total_seconds() < limit.per:
                problems.append(f"{limit.at_most + 1} placements within {last - first}: {limit}")
    return problems


class _UniqueKeys:
    """Checks that no two jobs with a unique key had work at a time, and that each cancelled one has a cause."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._runs: dict[str, tuple[int, int, int | None, Job]] = {}
        """By job: its run, the cursors of its beginning and its end, and the job."""
        self._at_work: dict[tuple[str, str], str] = {}

    def read(self, event: JobEvent, cursor: int, job: Job) -> None:
        if job.gates is None or (job.gates.unique is None and job.gates.debounce is None):
            return
        known = self._runs.get(job.id)
        began = cursor if known is None or known[0] != job.run else known[1]
        self._runs[job.id] = job.run, began, cursor if job.final else None, job
        if job.gates.unique is not None:
            key = job.gates.unique.name, job.gates.unique.key
            if job.final or job.state is JobState.HELD:
                if self._at_work.get(key) == job.id:
                    del self._at_work[key]
            elif self._at_work.setdefault(key, job.id) != job.id:
                self._problems.append(f"{job.id} was placed while {self._at_work[key]} had the unique key {key}")
        if job.state is JobState.CANCELLED and job.duplicate_of is not None and event.name == "cancelled":
            self._check_cause(began, job)

    def _check_cause(self, began: int, job: Job) -> None:
        kind = "debounce" if job.reason == "debounced" else "unique"
        other = self._runs.get(job.duplicate_of or "")
        if other is None:
            self._problems.append(f"{job.id} was cancelled because of {job.duplicate_of}, which has no key")
            return
        _, other_began, other_ended, cause = other
        mine, theirs = getattr(job.gates, kind), getattr(cause.gates, kind)
        if theirs is None or (theirs.name, theirs.key) != (mine.name, mine.key):
            self._problems.append(f"{job.id} was cancelled because of {cause.id}, which has another {kind} key")
        elif job.reason == "duplicate" and not (other_began < began and (other_ended is None or other_ended > began)):
            self._problems.append(f"{job.id} is no duplicate of {cause.id}, which was not open when it was submitted")
        elif job.reason != "duplicate" and other_began < began:
            self._problems.append(f"{job.id} was {job.reason} because of the earlier job {cause.id}")
        elif job.reason == "debounced" and job.placed > 0:
            self._problems.append(f"{job.id} was debounced after it had been placed")
