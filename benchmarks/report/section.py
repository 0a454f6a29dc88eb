"""A part of the page that a measurement writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Chart:
    """A bar chart. ``groups``: for each group, the values by bar name; ``logarithmic``: the scale of the values."""

    name: str
    title: str
    unit: str
    groups: Mapping[str, Mapping[str, float]]
    logarithmic: bool = False


@dataclass(frozen=True)
class Section:
    """Markdown and charts. The page has a pair of markers with this name."""

    name: str
    text: str
    charts: Sequence[Chart] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write it to ``<name>.json``."""
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
