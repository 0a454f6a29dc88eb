"""Check on the tape alone that gates were kept: order, limits and rates. Independent of ``schemas.gates``."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from jobtape.schemas import fold
from jobtape.schemas.events import JobEvent
from jobtape.schemas.gates import Limit
from jobtape.schemas.job import Job, JobState


def gate_problems(events: Iterable[tuple[JobEvent, int]]) -> list[str]:
    """Return what is wrong with the placements of held jobs. ``events``: the tape, with cursors."""
    problems: list[str] = []
    jobs: dict[str, Job] = {}
    ordered: defaultdict[str, dict[str, int]] = defaultdict(dict)
    """By ordering key, the cursor of the submission of each held job."""
    keys: dict[str, str] = {}
    slots: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    times: defaultdict[Limit, list[datetime]] = defaultdict(list)
    for event, cursor in events:
        before = jobs.get(event.subject)
        job = jobs[event.subject] = fold.evolve(before, event, cursor)
        if job is before or job.gates is None:
            continue
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
            if open_run or (job.state is JobState.FAILED and job.holds_slots):
                keys[job.id] = key
            else:
                keys.pop(job.id, None)
    for limit, placed in times.items():
        for first, last in zip(placed, placed[limit.at_most :], strict=False):
            if limit.per is not None and (last - first).total_seconds() < limit.per - 0.02:
                problems.append(f"{limit.at_most + 1} placements within {last - first}: {limit}")
    return problems
