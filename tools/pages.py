"""Write the generated parts of the documentation: ``python -m tools.pages``.

A part stands between ``<!-- NAME: … -->`` and ``<!-- NAME: end -->`` on its page. Its text is made from the code.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from jobtape.producer.http.problems import KINDS, URN
from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import FINAL, JobState
from jobtape.settings import Settings
from tools.clone import ROOT

_OPEN: Final = frozenset(JobState) - FINAL
Table = Mapping[tuple[JobState | None, str], tuple[JobState, ...]]


def settings_table() -> str:
    """Return a Markdown table of all environment variables with defaults and descriptions."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = {"rabbitmq_url": "RABBITMQ_URL", "database_url": "DATABASE_URL"}.get(name, f"JOBTAPE_{name.upper()}")
        value = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = "" if value in (None, (), "") else f"`{value}`"
        lines.append(f"| `{variable}` | {default} | {field.description} |")
    return "\n".join(lines)


def problems_table() -> str:
    """Return a Markdown table of all problem types of the REST API."""
    lines = [f"| `type` after `{URN}` | status | meaning |", "|---|---|---|"]
    lines += [f"| `{kind}` | {status} | {title} |" for kind, (status, title) in KINDS.items()]
    return "\n".join(lines)


def transitions_table() -> str:
    """Return a Markdown table of the transitions between states, a row for each arrow."""
    names = {
        "[*]": "no event known",
        "open": "open (" + ", ".join(f"`{state}`" for state in JobState if state in _OPEN) + ")",
    }
    lines = ["| state before | event | state after |", "|---|---|---|"]
    for start, target, events in arrows(TRANSITIONS):
        before = names.get(start, f"`{start}`")
        lines.append(f"| {before} | {', '.join(f'`{event}`' for event in events)} | `{target}` |")
    return "\n".join(lines)


def arrows(table: Table) -> list[tuple[str, str, list[str]]]:
    """Return (from, to, events) for each transition that can change the state.

    ``open`` stands for all open states where they share a transition, ``[*]`` for a job without events.
    """
    sources: dict[tuple[str, JobState], set[JobState | None]] = defaultdict(set)
    for (state, event), targets in table.items():
        for target in targets:
            if not stays(state, event, target, targets):
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


PARTS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "states": ("concepts/states.md", transitions_table),
    "settings": ("reference/settings.md", settings_table),
    "problems": ("reference/errors.md", problems_table),
}
"""Name of the part -> its page and the function that makes its text."""


def updated(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` as its part ``name``. Raises ValueError unless it has exactly one such part."""
    pattern = rf"(<!-- {name}: (?!end)[^>]*-->\n).*?(<!-- {name}: end -->)"
    made, count = re.subn(pattern, lambda part: f"{part[1]}\n{text}\n\n{part[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the part {name!r} is {count} times on its page: it must be there once")
    return made


def write(*, check: bool = False) -> list[str]:
    """Write the parts that differ from the code, and return their names. With ``check``, write nothing."""
    changed = []
    for name, (page, make) in PARTS.items():
        path = ROOT / "docs" / page
        before = path.read_text(encoding="utf-8")
        after = updated(before, name, make())
        if after != before:
            changed.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    return changed


if __name__ == "__main__":
    print(f"wrote {', '.join(write()) or 'nothing'}")
