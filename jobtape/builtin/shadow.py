"""``jobtape.shadow``: past jobs with today's handlers, only compared."""

from contextlib import closing
from typing import Any, Literal

from pydantic import BaseModel, Field

from jobtape.builtin.common import OURS, slice_of
from jobtape.jobs import job
from jobtape.loading import load_job_types
from jobtape.schemas.context import Context
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job import JobState, JobTypeName, QueueName, Utc
from jobtape.settings import read_settings


class Shadowed(BaseModel):
    """What came out. ``same``: it ended as it did then, with the same result or an error of the same type."""

    jobs: int
    same: int
    unknown_type: int = Field(description="Jobs of types that are not loaded where the shadow run ran.")
    different: list[str] = Field(description="The ids of the jobs that ended differently, the first 10,000.")
    more: int = Field(description="How many more are different than are named.")
    examples: list[dict[str, Any]]


@job("jobtape.shadow", **OURS)
def shadow(
    ctx: Context,
    type: list[JobTypeName] = [],  # noqa: A002, B006  # pydantic copies defaults
    state: list[Literal["succeeded", "failed"]] = ["succeeded"],  # noqa: B006
    queue: list[QueueName] = [],  # noqa: B006
    labels: dict[str, str] = {},  # noqa: B006
    since: Utc | None = None,
    until: Utc | None = None,
    limit: int = 1000,
) -> Shadowed:
    """Run past jobs with today's handlers, the newest first, and tell which end differently; nothing else changes."""
    from jobtape.consumer.shadow import Shadow, ShadowRun  # noqa: PLC0415
    from jobtape.view.store import JobQuery, Store  # noqa: PLC0415

    settings = read_settings()
    if not settings.jobs:
        raise JobtapeError("the projector that ran this knows no handlers: set JOBTAPE_JOBS where projectors run")
    job_types = load_job_types(settings.jobs, settings.app_dir)
    query = JobQuery(
        types=type,
        states=[JobState(each) for each in state],
        queues=queue,
        labels=tuple(labels.items()),
        since=since,
        until=until,
        limit=limit,
    )
    name = ctx.idempotency_key
    with slice_of(ctx, "jobs") as part, closing(Store(settings.database_url)) as store:
        found = ShadowRun(store, job_types, Shadow(name, query), part).run()
        store.tasks.end(name)
    return Shadowed(
        jobs=found["jobs"],
        same=found["same"],
        unknown_type=found["unknown"],
        different=found["different"],
        more=found["more"],
        examples=found["shown"],
    )
