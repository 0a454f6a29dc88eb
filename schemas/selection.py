"""Which events somebody wants: the same filter for queues, catch-up, server-sent events and WebSocket."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.ids import parse_job_id
from jobtape.schemas.job import JOB_TYPE_PATTERN

_JOB_TYPE: Final = re.compile(JOB_TYPE_PATTERN)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a job has from its submission on, as far as a filter looks at it."""

    type: str
    correlation_id: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters that all must hold; an empty one holds always, several values of one mean either of them.

    ``events``: names such as ``succeeded``. ``types``: job types; ``mail.*`` stands for all that begin with ``mail.``.
    ``labels``: all of which the job must have.
    """

    events: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    job: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str | None = None

    def wants_event(self, name: str) -> bool:
        """Whether an event of this name may be wanted; cheap, before anything is decoded."""
        return not self.events or name in self.events

    def fits(self, name: str, job: str, traits: Callable[[], Traits]) -> bool:
        """Whether the event of this name is wanted that this job had; ``traits`` is only asked where they matter."""
        return (
            self.wants_event(name)
            and (self.job is None or job == self.job)
            and (not (self.types or self.labels or self.correlation_id is not None) or self._fits_traits(traits()))
        )

    def _fits_traits(self, job: Traits) -> bool:
        return (
            (not self.types or any(_fits(pattern, job.type) for pattern in self.types))
            and (self.correlation_id is None or job.correlation_id == self.correlation_id)
            and (not self.labels or self.labels.items() <= job.labels.items())
        )

    def fault(self) -> str | None:
        """Why nothing could ever fit, or None: an event that there is not, a pattern that is no job type's name."""
        for name in sorted(self.events - set(EVENT_NAMES)):
            return f"there is no event {name!r}; there are {', '.join(EVENT_NAMES)}"
        for pattern in sorted(self.types):
            if not _JOB_TYPE.fullmatch(pattern.removesuffix(".*")):
                return f"{pattern!r} is neither a job type nor the beginning of some (as mail.* is)"
        if self.job is not None and parse_job_id(self.job) != self.job:
            return f"{self.job!r} is no job's id"
        return None

    def in_words(self) -> str:
        """The filter as a text of at most 200 characters, all ASCII; another filter has another one."""
        parts = {
            "events": sorted(self.events),
            "types": sorted(self.types),
            "job": self.job,
            "labels": dict(self.labels),
            "correlation_id": self.correlation_id,
        }
        whole = json.dumps({name: value for name, value in parts.items() if value}, sort_keys=True)
        return whole if len(whole) <= 200 else f"{whole[:160]}... {sha256(whole.encode()).hexdigest()[:32]}"


def _fits(pattern: str, job_type: str) -> bool:
    return job_type.startswith(pattern[:-1]) if pattern.endswith(".*") else job_type == pattern
