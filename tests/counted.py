"""Counts jobs, events and durations one by one, and compares the statistics of a view with that."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import TypeVar

from jobtape.schemas.events import Failed, JobEvent, Retrying, Started, Succeeded
from jobtape.schemas.execution.failure_group import group_of
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import FINAL, Job, JobState
from jobtape.view.jobs.statistics import Range, Sums
from jobtape.view.store import Store
from jobtape.view.tallies import SHORTEST, percentile

ERROR = 1.1893
"""The largest factor between a duration and what the statistics have for it."""
ALL_TIME = Range(0, 2**40)

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Fact:
    """An accepted event with what is known of its job, and the durations that it says."""

    event: JobEvent
    type: str
    queue: str
    wait: float | None
    run: float | None

    @property
    def minute(self) -> int:
        """The minute of the event since 1970."""
        return int(self.event.time.timestamp() // 60)

    @property
    def group(self) -> str | None:
        """The id of the failure's group."""
        event = self.event
        if not isinstance(event, Failed | Retrying):
            return None
        return group_of(event.data.job_type, event.data.reason, event.data.error).id


@dataclass(slots=True)
class Counted:
    """The events of a tape and their jobs."""

    facts: list[Fact] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)

    def read(self, event: JobEvent, cursor: int) -> None:
        """Read the next event of the tape."""
        before = self.jobs.get(event.subject)
        after = self.jobs[event.subject] = evolve(before, event, cursor)
        if after is before:
            return
        started = None
        if isinstance(event, Started):
            started = event.time
        elif isinstance(event, Succeeded | Failed):
            started = event.data.started_at
        run = event.data.duration if isinstance(event, Succeeded | Failed) else None
        self.facts.append(Fact(event, after.type, after.queue or "", _wait(before, event, started), run))

    def remove(self, job_ids: Iterable[str]) -> None:
        """Forget the states of jobs that retention has removed. What happened stays."""
        for job_id in job_ids:
            del self.jobs[job_id]

    def states(self) -> Counter[tuple[str, str, str]]:
        """Return the numbers of jobs by type, queue and state, as lists show them."""
        known = (job for job in self.jobs.values() if job.submitted_at is not None)
        return Counter((job.type, job.queue or "", job.state.value) for job in known)

    def held(self) -> Counter[str]:
        """Return the numbers of held jobs by what they may have to wait for."""
        found: Counter[str] = Counter()
        for job in self.jobs.values():
            if job.state is not JobState.HELD or job.submitted_at is None or job.imported:
                continue
            if job.follow_ups is not None:
                found["follow-ups of the job"] += 1
                continue
            if job.gates is None:
                continue
            found.update({limit.name for limit in job.gates.limits})
            found["ordering key"] += job.gates.ordering_key is not None
            found["unique key"] += job.gates.unique is not None
        return +found

    def differences(self, store: Store, within: Range = ALL_TIME, step: int = 60) -> list[str]:
        """Return where the statistics of the view differ, in a range of minutes and its steps of ``step`` minutes."""
        statistics = store.statistics
        found: list[str] = []

        def compare(what: str, view: object, tape: object) -> None:
            if view != tape:
                found.append(f"{what}: {view} instead of {tape}")

        compare("states", {(kind, queue, state): n for kind, queue, state, n in statistics.jobs()}, self.states())
        compare("held jobs", statistics.held(), self.held())
        compare("all events", store.counts(), Counter((fact.type, fact.event.name) for fact in self.facts))
        facts = [fact for fact in self.facts if within.since <= fact.minute < within.until]
        by_place: defaultdict[tuple[str, str], list[Fact]] = defaultdict(list)
        by_step: defaultdict[int, list[Fact]] = defaultdict(list)
        for fact in facts:
            by_place[fact.type, fact.queue].append(fact)
            by_step[(fact.minute - within.since) // step].append(fact)
        found += _compare_sums("types and queues", statistics.totals(within), by_place)
        found += _compare_sums("series", statistics.series(within, step), by_step)
        totals = {n: (len(of), sum(each.event.name == "failed" for each in of)) for n, of in by_step.items()}
        compare("histogram", statistics.events(within, step), totals)
        groups: defaultdict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            if fact.group is not None:
                groups[fact.group].append(fact)
        listed = statistics.failures(within, 1000)
        compare("failure groups", {each.id for each in listed}, groups.keys())
        for each in listed:
            of = groups.get(each.id, [])
            names = Counter(fact.event.name for fact in of)
            compare(f"failures {each.id}", (each.failed, each.retrying), (names["failed"], names["retrying"]))
            compare(f"failed jobs {each.id}", each.jobs, len(self._failed(each.id)))
            compare(f"example {each.id}", each.example, self._example(each.id))
            times = [fact.event.time for fact in self.facts if fact.group == each.id]
            compare(f"times {each.id}", (each.first, each.last), (min(times), max(times)))
        return found

    def _example(self, group: str) -> str | None:
        """Return the newest job with the error of a group; if none has it any more, that of the last event."""
        last = next(fact.event.subject for fact in reversed(self.facts) if fact.group == group)
        return max(self._with(group), default=last if last in self.jobs else None)

    def _with(self, group: str) -> list[str]:
        return [job.id for job in self.jobs.values() if job.failure == group]

    def _failed(self, group: str) -> list[str]:
        whole = [job_id for job_id in self._with(group) if self.jobs[job_id].submitted_at is not None]
        return [job_id for job_id in whole if self.jobs[job_id].state is JobState.FAILED]


def _wait(before: Job | None, event: JobEvent, started: datetime | None) -> float | None:
    if before is None or before.run_at is None or started is None or before.state in {*FINAL, JobState.RUNNING}:
        return None
    due = (before.run, before.attempt + (before.state is JobState.RETRYING))
    return (started - before.run_at).total_seconds() if (event.data.run, event.data.attempt) == due else None


def _compare_sums(what: str, view: Mapping[K, Sums], tape: Mapping[K, list[Fact]]) -> list[str]:
    found = [f"{what}: {key} only in one" for key in view.keys() ^ tape.keys()]
    for key in view.keys() & tape.keys():
        events = Counter(fact.event.name for fact in tape[key])
        if view[key].events != events:
            found.append(f"{what} {key}: {view[key].events} instead of {events}")
        waits = [fact.wait for fact in tape[key] if fact.wait is not None]
        runs = [fact.run for fact in tape[key] if fact.run is not None]
        for name, buckets, exact in (("wait", view[key].waits, waits), ("run", view[key].runs, runs)):
            if sum(buckets.values()) != len(exact):
                found.append(f"{what} {key}: {buckets} {name}s instead of {exact}")
                continue
            for share in (0.5, 0.99) if exact else ():
                right = max(sorted(exact)[max(0, ceil(share * len(exact)) - 1)], 0.0)
                shown = percentile(buckets, share)
                assert shown is not None
                if not (right / ERROR <= shown <= right * ERROR or (right < SHORTEST and shown == 0.001)):
                    found.append(f"{what} {key}: {name} p{share}: {shown} instead of {right}")
    return found
