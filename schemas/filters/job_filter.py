"""Which jobs a built-in job takes: those that a filter matches, newest first."""

from abc import ABC, abstractmethod
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from jobtape.schemas import ids
from jobtape.schemas.events import EndReason
from jobtape.schemas.execution.failure_group import FailureId
from jobtape.schemas.filters.job_search import LONGEST_TEXT, JobSearch, Part, value_searches
from jobtape.schemas.job import FINAL, JobState, JobTypeName, Utc, WorkQueueName
from jobtape.schemas.queueing.gates import KEY_LENGTH

REDRIVE: Final = "jobtape.redrive"
CANCEL: Final = "jobtape.cancel"
"""The job types of bulk actions."""
MOST_JOBS: Final = 10_000_000
MOST_IDS: Final = 10_000
OPEN: Final = frozenset(JobState) - FINAL


def _job_id(text: str) -> str:
    if (job_id := ids.parse_job_id(text)) is None:
        raise ValueError("a job id is a UUID, as POST /jobs returns it")
    return job_id


def _ended(state: JobState) -> JobState:
    if state not in FINAL:
        raise ValueError(f"only jobs that have ended can be redriven: {', '.join(sorted(FINAL))}")
    return state


def _open(state: JobState) -> JobState:
    if state in FINAL:
        raise ValueError(f"only jobs that have not ended can be cancelled: {', '.join(sorted(OPEN))}")
    return state


JobIdText = Annotated[str, AfterValidator(_job_id)]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None


class JobFilter(BaseModel, ABC):
    """A job must match all filters; one value of several given for a filter is enough. All labels must match."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    ids: list[JobIdText] = Field([], max_length=MOST_IDS)
    type: list[JobTypeName] = Field([], max_length=50)
    queue: list[WorkQueueName] = Field([], max_length=50)
    labels: dict[str, str] = Field({}, max_length=8)
    reason: list[EndReason] = Field([], max_length=20)
    """Why the last attempt failed."""
    failure: list[FailureId] = Field([], max_length=50)
    """The group of the last error, as `GET /failures` returns it."""
    ordering_key: str | None = Field(None, min_length=1, max_length=KEY_LENGTH)
    """The ordering key."""
    since: Utc | None = None
    """Submitted at this time or later (RFC 3339)."""
    until: Utc | None = None
    """Submitted before this time (RFC 3339)."""
    error: str = Field("", max_length=LONGEST_TEXT)
    """Part of the type or the message of the error, in upper or lower case."""
    payload: dict[str, Scalar] = {}
    """Values by their paths in the payload, such as `{"customer.id": 42}`."""
    result: dict[str, Scalar] = {}
    """Values by their paths in the result."""

    @model_validator(mode="after")
    def _checked(self) -> "JobFilter":
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(
                f"since ({self.since}) is later than until ({self.until}): no job is between them, swap them"
            )
        self.search()
        return self

    def search(self) -> JobSearch:
        """Return what to search for in the jobs."""
        values: dict[tuple[Part, str], Scalar] = {("payload", path): value for path, value in self.payload.items()}
        values |= {("result", path): value for path, value in self.result.items()}
        return JobSearch(value_searches(values), self.error)

    @abstractmethod
    def states(self) -> list[JobState]:
        """Return the states of the jobs."""


class RedriveRequest(JobFilter):
    """Run ended jobs again, the newest first. Built-in jobs are left out unless ``type`` names them."""

    state: list[Annotated[JobState, AfterValidator(_ended)]] = Field([], max_length=3)
    """`failed`, `succeeded`, `cancelled`. Default: `failed`; with `ids` all three."""
    limit: int | None = Field(None, ge=1, le=MOST_JOBS, strict=True)
    """The largest number of jobs; default: all."""

    def states(self) -> list[JobState]:
        return self.state or (sorted(FINAL) if self.ids else [JobState.FAILED])


class CancelRequest(JobFilter):
    """Cancel open jobs, the newest first. Built-in jobs are left out unless ``type`` names them."""

    state: list[Annotated[JobState, AfterValidator(_open)]] = Field([], max_length=len(OPEN))
    """`scheduled`, `held`, `queued`, `running`, `retrying`. Default: all."""
    limit: int | None = Field(None, ge=1, le=MOST_JOBS, strict=True)
    """The largest number of jobs; default: all."""

    def states(self) -> list[JobState]:
        return self.state or sorted(OPEN)
