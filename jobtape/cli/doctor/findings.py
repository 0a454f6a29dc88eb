"""What ``jobtape doctor`` finds, and what to do about it."""

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["fine", "note", "wrong"]
Part = Literal["broker", "view", "workers", "settings"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``wrong``: something is to be done, and ``todo`` says what; ``note``: worth knowing; ``fine``: in order."""

    part: Part
    level: Level
    what: str
    todo: str | None = None


@dataclass(slots=True)
class Findings:
    """In the order they were found."""

    items: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return all(item.level != "wrong" for item in self.items)

    def fine(self, part: Part, what: str) -> None:
        """In order."""
        self.items.append(Finding(part, "fine", what))

    def note(self, part: Part, what: str, todo: str | None = None) -> None:
        """Worth knowing, or what to keep in mind."""
        self.items.append(Finding(part, "note", what, todo))

    def wrong(self, part: Part, what: str, todo: str) -> None:
        """Not in order."""
        self.items.append(Finding(part, "wrong", what, todo))
