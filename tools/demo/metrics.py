"""The counts in /metrics, against what was submitted."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from tools.demo.orders import expect

METRIC = "jobtape_jobs"


def check_counts(text: str, expected: Counter[tuple[str, str]]) -> str:
    """What was found right; raises Wrong. ``expected``: how many jobs of each (type, state)."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == METRIC:
                found[sample.labels["state"]] += int(sample.value)
    states: Counter[str] = Counter()
    for (_, state), count in expected.items():
        states[state] += count
    expect(+found == states, f"it counts {dict(+found)}, not {dict(states)}")
    return ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
