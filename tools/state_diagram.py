"""Draws the diagram in ``docs/concepts/states.md`` from the transition table; ``tools/pages.py`` puts it there.

The table is the source, so the picture cannot say anything else than the code. What all open states have in common is
drawn once.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import FINAL, JobState

_OPEN: Final = frozenset(JobState) - FINAL
Table = Mapping[tuple[JobState | None, str], tuple[JobState, ...]]


def arrows(table: Table) -> list[tuple[str, str, list[str]]]:
    """(from, to, events) for each arrow; what leaves a state as it is, or may, is not drawn as an arrow to itself."""
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
    """Whether ``target`` means that the event has come too late to move the state, or never does."""
    return target is state and (event == "submitted" or len(targets) > 1)


def draw(table: Table = TRANSITIONS) -> str:
    """The diagram as a Mermaid block."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR"]
    for title, name, states in (("an open run", "open", _OPEN), ("a closed run", "closed", FINAL)):
        lines.append(f'    state "{title}" as {name} {{')
        lines += [f"        {state.value}" for state in JobState if state in states]
        lines.append("    }")
    lines += [f"    {start} --> {target}: {', '.join(names)}" for start, target, names in arrows(table)]
    return "\n".join([*lines, "    closed --> [*]", "```"])
