"""What must hold for every job: its state, its history, and that the history folds to that state. And the counters."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

from jobtape.schemas import events, fold
from jobtape.schemas.job import Job
from tools.demo.demo_jobs import DemoJob, expect

COMPARED = (
    *("id", "type", "state", "payload", "result", "error", "progress", "queue", "labels", "run", "attempt"),
    *("max_attempts", "submitted_at", "run_at", "started_at", "finished_at", "correlation_id", "cursor"),
)
METRIC = "jobtape_events_total"
COUNTED = ("submitted", "succeeded", "failed", "cancelled")


def check_job(wanted: DemoJob, job: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """Check a job and its history as the API returns them. Return what was right in a few words. Raises Wrong."""
    check_state(wanted, job)
    found = wanted.check(job)
    check_history(wanted, job, history)
    return found


def check_state(wanted: DemoJob, job: dict[str, Any]) -> None:
    """Check that the job is the submitted one, and ended as it should in one attempt."""
    reason = f" ({job['error']['type']}: {job['error']['message']})" if job["error"] else ""
    expect(job["state"] == wanted.state, f"its state is {job['state']}, not {wanted.state}{reason}")
    expect((job["type"], job["payload"]) == (wanted.type, wanted.payload), "it is not what was submitted")
    expect((job["run"], job["attempt"]) == (1, 1), f"run {job['run']}, attempt {job['attempt']}")
    times = [job[name] for name in ("submitted_at", "started_at", "finished_at")]
    expect(all(times), f"a time is missing: {times}")


def check_history(wanted: DemoJob, job: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Check that the history is complete and in order, and folds to the job that GET returns."""
    names = [event["type"].removeprefix(events.TYPE_PREFIX) for event in history]
    expect(names, "it has no history")
    expect((names[0], names[-1]) == ("submitted", wanted.state), f"its history is {' '.join(names)}")
    cursors = [event["cursor"] for event in history]
    expect(all(one < two for one, two in pairwise(cursors)), f"its cursors do not rise: {cursors}")
    # If a worker dies, another one starts its jobs again, so progress rises only within one execution.
    fractions: defaultdict[str, list[float]] = defaultdict(list)
    for event in history:
        if event["type"].endswith(".progressed"):
            fractions[event["data"]["execution"]].append(event["data"]["fraction"])
    expect(all(one == sorted(one) for one in fractions.values()), f"its progress goes back: {dict(fractions)}")
    folded = fold.fold((events.parse(event), event["cursor"]) for event in history)
    expect(list(folded) == [job["id"]], f"the history is of {list(folded)}")
    mine = TypeAdapter(Job).dump_python(folded[job["id"]], mode="json")
    for name in COMPARED:
        expect(mine[name] == job[name], f"{name}: GET returns {job[name]!r}, the fold {mine[name]!r}")


def check_counts(text: str, expected: Counter[tuple[str, str]]) -> str:
    """Check the counters in ``text``, the answer of /metrics. Return what was right in a few words. Raises Wrong.

    ``expected`` says how many jobs of each (job type, last event) there are.
    """
    counted: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == METRIC and sample.labels["event"] in COUNTED:
                counted[sample.labels["job_type"], sample.labels["event"]] = int(sample.value)
    wanted = expected.copy()
    for (job_type, _), count in expected.items():
        wanted[job_type, "submitted"] += count
    expect(+counted == wanted, f"it counts {dict(counted)} instead of {dict(wanted)}")
    return ", ".join(f"{sum(counted[key] for key in counted if key[1] == event):,} {event}" for event in COUNTED[:3])
