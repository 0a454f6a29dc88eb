"""The notice that the active projector publishes for API processes after a commit: a small message that may be lost."""

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

MOST_JOBS: Final = 500
"""Job ids in one notice. With more it names none, and every request that waits reads its job."""


@dataclass(frozen=True, slots=True)
class CommitNotice:
    """Events of ``jobs`` (by id whether the job has ended; None: of any) were committed. ``number`` counts the notices
    of ``source`` from 1.
    """

    source: str
    number: int
    jobs: dict[str, bool] | None

    def follows(self, before: "CommitNotice | None") -> bool:
        """Return whether no notice was lost since ``before``."""
        return before is not None and (self.source, self.number) == (before.source, before.number + 1)


_ADAPTER: Final = TypeAdapter(CommitNotice)


def encode_notice(notice: CommitNotice) -> bytes:
    """Return the message body."""
    return to_json(notice)


def decode_notice(body: bytes) -> CommitNotice | None:
    """Return the notice in a message body; None for anything else, which any program may publish."""
    try:
        return _ADAPTER.validate_json(body)
    except ValidationError:
        return None
