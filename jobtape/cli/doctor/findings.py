"""The findings of ``jobtape doctor``, with what to do about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["fine", "note", "wrong"]
Part = Literal["broker", "view", "workers", "settings", "outbox", "webhooks"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``wrong``: ``todo`` says what to do, unless ``what`` does.

    ``note``: worth knowing; ``fine``: in order.
    """

    part: Part
    level: Level
    what: str
    todo: str | None = None


@dataclass(slots=True)
class Findings:
    """All findings, in the order in which they were found."""

    items: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return all(item.level != "wrong" for item in self.items)

    def fine(self, part: Part, what: str) -> None:
        self.items.append(Finding(part, "fine", what))

    def note(self, part: Part, what: str, todo: str | None = None) -> None:
        self.items.append(Finding(part, "note", what, todo))

    def wrong(self, part: Part, what: str, todo: str | None = None) -> None:
        self.items.append(Finding(part, "wrong", what, todo))


def first_of(names: Sequence[str], count: int) -> str:
    """Return the first ``count`` names in one text, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
