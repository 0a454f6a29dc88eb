"""A filter for events, the same for queues, catch-up subscriptions, server-sent events and WebSocket."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.ids import parse_job_id
from jobtape.schemas.job import JOB_TYPE_PATTERN
from jobtape.schemas.submission import CORRELATION_ID_LENGTH, LabelName, LabelValue

_JOB_TYPE: Final = re.compile(JOB_TYPE_PATTERN)


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that an event must all meet. An empty one is always met; of several values one must match.

    ``events``: names such as ``succeeded``. ``types``: job types; ``mail.*`` means all that begin with ``mail.``.
    ``labels``: labels that the job must all have.
    """

    events: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    job: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str | None = None

    def fits(self, name: str, job: str, job_type: str, correlation_id: str | None, labels: Mapping[str, str]) -> bool:
        """Return whether an event of this name matches. The others are those of its job."""
        return (
            (not self.events or name in self.events)
            and (self.job is None or job == self.job)
            and (not self.types or any(fits_type(pattern, job_type) for pattern in self.types))
            and (self.correlation_id is None or correlation_id == self.correlation_id)
            and (not self.labels or self.labels.items() <= labels.items())
        )

    def fault(self) -> str | None:
        """Return why no event can ever match (unknown event name, invalid pattern or job id), or None."""
        for name in sorted(self.events - set(EVENT_NAMES)):
            return f"there is no event {name!r}; the events are {', '.join(EVENT_NAMES)}"
        for pattern in sorted(self.types):
            if not _JOB_TYPE.fullmatch(pattern.removesuffix(".*")):
                return f"{pattern!r} is neither a job type nor a pattern like mail.*"
        if self.job is not None and parse_job_id(self.job) != self.job:
            return f"{self.job!r} is no job id"
        return None

    def in_words(self) -> str:
        """Return the filter as ASCII text of at most 200 characters. Different filters have different texts."""
        parts = {
            "events": sorted(self.events),
            "types": sorted(self.types),
            "job": self.job,
            "labels": dict(self.labels),
            "correlation_id": self.correlation_id,
        }
        whole = json.dumps({name: value for name, value in parts.items() if value}, sort_keys=True)
        return whole if len(whole) <= 200 else f"{whole[:160]}... {sha256(whole.encode()).hexdigest()[:32]}"


def fits_type(pattern: str, job_type: str) -> bool:
    """Return whether ``pattern``, a job type or such as ``mail.*``, matches the job type."""
    return job_type.startswith(pattern[:-1]) if pattern.endswith(".*") else job_type == pattern


def _fitting(selection: Callable[[str], Selection]) -> AfterValidator:
    def check(text: str) -> str:
        if (fault := selection(text).fault()) is not None:
            raise ValueError(fault)
        return text

    return AfterValidator(check)


def _job_id(text: str) -> str:
    if (job_id := parse_job_id(text)) is None:
        raise ValueError("a job id is a UUID, as POST /jobs returns it")
    return job_id


EventName = Annotated[
    str, _fitting(lambda text: Selection(events=frozenset({text}))), Field(json_schema_extra={"enum": [*EVENT_NAMES]})
]
TypePattern = Annotated[str, _fitting(lambda text: Selection(types=frozenset({text})))]
JobIdText = Annotated[str, AfterValidator(_job_id)]


class EventFilter(BaseModel):
    """A ``Selection`` in a JSON object. What is absent restricts nothing; of several values one must match."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    events: list[EventName] = Field(default_factory=list, max_length=len(EVENT_NAMES))
    types: list[TypePattern] = Field(default_factory=list, max_length=50)
    """Job types; `mail.*` means all that begin with `mail.`."""
    job: JobIdText | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=8)
    correlation_id: str | None = Field(None, min_length=1, max_length=CORRELATION_ID_LENGTH)

    def selection(self) -> Selection:
        return Selection(
            events=frozenset(self.events),
            types=frozenset(self.types),
            job=self.job,
            labels=self.labels,
            correlation_id=self.correlation_id,
        )
