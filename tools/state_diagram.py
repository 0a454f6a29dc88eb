"""Draws the diagram in ``docs/states.md`` from the transition table: ``python -m tools.state_diagram [--check]``.

The table is the source, so the picture cannot say anything else than the code. What all open states have in common is
drawn once.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import FINAL, JobState

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "states.md"
BEGIN: Final = "<!-- drawn by tools/state_diagram.py: begin -->"
END: Final = "<!-- drawn by tools/state_diagram.py: end -->"

_OPEN: Final = frozenset(JobState) - FINAL
Table = Mapping[tuple[JobState | None, str], tuple[JobState, ...]]


def arrows(table: Table) -> list[tuple[str, str, list[str]]]:
    """(from, to, events) for each arrow; events that leave a state as it is are not drawn."""
    sources: dict[tuple[str, JobState], set[JobState | None]] = defaultdict(set)
    for (state, event), targets in table.items():
        for target in targets:
            if event == "submitted" and target is state:
                continue
            sources[event, target].add(state)
    events: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (event, target), states in sources.items():
        rest = states - _OPEN if states >= _OPEN else states
        names = ["open"] if states >= _OPEN else []
        for name in [*("[*]" if state is None else state.value for state in sorted(rest, key=str)), *names]:
            events[name, target.value].append(event)
    return [(start, target, names) for (start, target), names in sorted(events.items())]


def draw(table: Table = TRANSITIONS) -> str:
    """The diagram as a Mermaid block."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR"]
    for title, name, states in (("an open run", "open", _OPEN), ("a closed run", "closed", FINAL)):
        lines.append(f'    state "{title}" as {name} {{')
        lines += [f"        {state.value}" for state in JobState if state in states]
        lines.append("    }")
    lines += [f"    {start} --> {target}: {', '.join(names)}" for start, target, names in arrows(table)]
    return "\n".join([*lines, "    closed --> [*]", "```"])


def updated(page: str) -> str:
    """The page with the present diagram between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{draw()}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Update the page, or with ``--check`` only say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    if page == updated(page):
        print(f"{PAGE.name} is up to date")
        return 0
    if "--check" in arguments:
        print(f"{PAGE.name} is not what the table says: run python -m tools.state_diagram")
        return 1
    PAGE.write_text(updated(page), encoding="utf-8")
    print(f"{PAGE.name} is drawn anew")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
