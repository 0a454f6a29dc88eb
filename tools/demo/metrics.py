"""The counts in /metrics, against what was submitted."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from tools.demo.orders import expect

METRIC = "jobtape_events_total"
EVENTS = ("submitted", "succeeded", "failed", "cancelled")


def check_counts(text: str, expected: Counter[tuple[str, str]]) -> str:
    """What was found right; raises Wrong. ``expected``: how many jobs of each (job type, last event)."""
    counted: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == METRIC and sample.labels["event"] in EVENTS:
                counted[sample.labels["job_type"], sample.labels["event"]] = int(sample.value)
    wanted = expected.copy()
    for (job_type, _), count in expected.items():
        wanted[job_type, "submitted"] += count
    expect(+counted == wanted, f"it counts {_delivered(counted)} instead of {_delivered(wanted)}")
    return ", ".join(f"{sum(counted[key] for key in counted if key[1] == event):,} {event}" for event in EVENTS[:3])


def _delivered(counts: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{count} {job_type} {event}" for (job_type, event), count in sorted(counts.items()))
