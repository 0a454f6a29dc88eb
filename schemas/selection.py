"""Which events somebody wants to hear: the same filter for queues, catch-up, server-sent events and WebSocket."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobtape.schemas.job import Job


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

    def wants(self, name: str, job: Job) -> bool:
        """Whether the event is wanted that left ``job`` as it is."""
        return (
            self.wants_event(name)
            and (self.job is None or job.id == self.job)
            and (not self.types or any(_fits(pattern, job.type) for pattern in self.types))
            and (self.correlation_id is None or job.correlation_id == self.correlation_id)
            and (not self.labels or self.labels.items() <= (job.labels or {}).items())
        )


def _fits(pattern: str, job_type: str) -> bool:
    return job_type.startswith(pattern[:-1]) if pattern.endswith(".*") else job_type == pattern
