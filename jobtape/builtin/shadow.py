"""``jobtape.shadow``: runs past jobs with today's handlers and compares the outcomes, without changing anything."""

from contextlib import closing
from typing import Any, Literal

from pydantic import BaseModel, Field

from jobtape.builtin.common import BUILTIN, SLICE, slice_of
from jobtape.jobs import job
from jobtape.loading import load_job_types
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.execution.context import Context
from jobtape.schemas.filters.job_filter import MOST_JOBS, JobFilter
from jobtape.schemas.job import JobState
from jobtape.settings import read_settings


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


class ShadowRequest(JobFilter):
    """Filters for past jobs. A filter that is absent matches all."""

    state: list[Literal["succeeded", "failed"]] = Field(["succeeded"], max_length=2)
    limit: int = Field(1000, ge=1, le=MOST_JOBS, description="The largest number of jobs, newest first.")

    def states(self) -> list[JobState]:
        return [JobState(each) for each in self.state]


@job("jobtape.shadow", **BUILTIN)
def shadow(ctx: Context, request: ShadowRequest) -> Shadowed:
    """Run past jobs with today's handlers, newest first, and name those that end differently; change nothing."""
    from jobtape.consumer.replays.shadow import Shadow, ShadowRun  # noqa: PLC0415
    from jobtape.view.store import JobQuery, Store  # noqa: PLC0415

    settings = read_settings()
    if not settings.jobs:
        raise JobtapeError("the projector has no job types loaded: set JOBTAPE_JOBS where projectors run")
    job_types = load_job_types(settings.jobs, settings.app_dir)
    with slice_of(ctx, "jobs") as part, closing(Store(settings.database_url)) as store:
        # Identified by the run: a redriven shadow run starts again, because the handlers may have changed.
        wanted = Shadow(ctx.idempotency_key, JobQuery.of(request, request.limit), longest=SLICE)
        found = ShadowRun(store, job_types, wanted, part).run()
    return Shadowed(
        jobs=found["jobs"],
        same=found["same"],
        unknown_type=found["unknown"],
        different=found["different"],
        more=found["more"],
        kinds=found["kinds"],
    )
