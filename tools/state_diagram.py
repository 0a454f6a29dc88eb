"""Writes the transition table of ``docs/concepts/states.md`` from the code; ``tools/pages.py`` puts it on the page.

All open states have the same transitions, so they share one row for each.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import FINAL, JobState

_OPEN: Final = frozenset(JobState) - FINAL
Table = Mapping[tuple[JobState | None, str], tuple[JobState, ...]]


def arrows(table: Table) -> list[tuple[str, str, list[str]]]:
    """Return (from, to, events) for each transition that can change the state; ``open`` stands for all open states."""
    sources: dict[tuple[str, JobState], set[JobState | None]] = defaultdict(set)
    for (state, event), targets in table.items():
        for target in targets:
            if stays(state, event, target, targets):
                continue
            sources[event, target].add(state)
    events: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (event, target), states in sources.items():
        rest = states - _OPEN if states >= _OPEN else states
        names = ["open"] if states >= _OPEN else []
        for name in [*("[*]" if state is None else state.value for state in sorted(rest, key=str)), *names]:
            events[name, target.value].append(event)
    return [(start, target, names) for (start, target), names in sorted(events.items())]


def stays(state: JobState | None, event: str, target: JobState, targets: tuple[JobState, ...]) -> bool:
    """Return whether the event came too late to change the state, or never changes it."""
    return target is state and (event == "submitted" or len(targets) > 1)


def draw(table: Table = TRANSITIONS) -> str:
    """Return the transitions as a Markdown table: a row for each arrow."""
    names = {
        "[*]": "no event known",
        "open": "open (" + ", ".join(f"`{state}`" for state in JobState if state in _OPEN) + ")",
    }
    lines = ["| state before | event | state after |", "|---|---|---|"]
    for start, target, events in arrows(table):
        before = names.get(start, f"`{start}`")
        lines.append(f"| {before} | {', '.join(f'`{event}`' for event in events)} | `{target}` |")
    return "\n".join(lines)
