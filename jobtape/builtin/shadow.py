"""``jobtape.shadow``: runs past jobs with today's handlers and compares the outcomes, without changing anything."""

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobtape.builtin.common import BUILTIN, SLICE, slice_of
from jobtape.jobs import job
from jobtape.loading import load_job_types
from jobtape.schemas.context import Context
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import JobState, JobTypeName, QueueName, Utc
from jobtape.settings import read_settings

if TYPE_CHECKING:
    from jobtape.view.store import JobQuery

MOST: Final = 10_000_000


class DifferenceKind(BaseModel):
    """The jobs of a type whose outcomes differ at the same place in the same way.

    ``path``: the place in the outcome, such as ``result.items[].price``; empty for the outcome as a whole. ``then`` and
    ``now``: what was there and what is there now: ``text``, ``number``, ``list``, ``object``, ``true``, ``false``,
    ``null`` or ``absent``; for the outcome as a whole ``succeeded`` or the type of the error. ``examples``: some jobs,
    with their values there where they have one.
    """

    type: str
    path: str
    then: str
    now: str
    jobs: int
    examples: list[dict[str, Any]]


class Shadowed(BaseModel):
    """The result of a shadow run. ``same``: jobs with the same result, or an error of the same type, as before."""

    jobs: int
    same: int
    unknown_type: int = Field(description="Jobs whose types are not loaded in the projector's process.")
    different: dict[str, list[int]] = Field(
        description="The ids of jobs that ended differently, at most 10,000, each with its positions in `kinds`."
    )
    more: int = Field(description="How many more jobs ended differently.")
    kinds: list[DifferenceKind] = Field(description="The first 50 kinds of differences.")


class ShadowRequest(BaseModel):
    """Filters for past jobs. A filter that is absent matches all."""

    model_config = ConfigDict(extra="forbid")

    type: list[JobTypeName] = []
    state: list[Literal["succeeded", "failed"]] = ["succeeded"]
    queue: list[QueueName] = []
    labels: dict[str, str] = {}
    since: Utc | None = None
    until: Utc | None = None
    limit: int = Field(1000, ge=1, le=MOST, description="The largest number of jobs, newest first.")

    @model_validator(mode="after")
    def _in_order(self) -> "ShadowRequest":
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(
                f"since ({self.since}) is later than until ({self.until}): no job is between them, swap them"
            )
        return self

    def query(self) -> "JobQuery":
        """Return the query for the jobs, newest first."""
        from jobtape.view.store import JobQuery  # noqa: PLC0415

        return JobQuery(
            types=self.type,
            states=[JobState(each) for each in self.state],
            queues=self.queue,
            labels=tuple(self.labels.items()),
            since=self.since,
            until=self.until,
            limit=self.limit,
        )


@job("jobtape.shadow", **BUILTIN)
def shadow(ctx: Context, request: ShadowRequest) -> Shadowed:
    """Run past jobs with today's handlers, newest first, and name those that end differently; change nothing."""
    from jobtape.consumer.replays.shadow import Shadow, ShadowRun  # noqa: PLC0415
    from jobtape.view.store import Store  # noqa: PLC0415

    settings = read_settings()
    if not settings.jobs:
        raise JobtapeError("the projector has no job types loaded: set JOBTAPE_JOBS where projectors run")
    job_types = load_job_types(settings.jobs, settings.app_dir)
    with slice_of(ctx, "jobs") as part, closing(Store(settings.database_url)) as store:
        # Identified by the run: a redriven shadow run starts again, because the handlers may have changed.
        wanted = Shadow(ctx.idempotency_key, request.query(), longest=SLICE)
        found = ShadowRun(store, job_types, wanted, part).run()
    return Shadowed(
        jobs=found["jobs"],
        same=found["same"],
        unknown_type=found["unknown"],
        different=found["different"],
        more=found["more"],
        kinds=found["kinds"],
    )
