"""``jobtape.redrive`` and ``jobtape.cancel``: act on all jobs of a filter, however many there are."""

from contextlib import closing
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from jobtape.builtin.common import BUILTIN, slice_of, topology_of
from jobtape.jobs import job
from jobtape.schemas.execution.context import Context
from jobtape.schemas.filters.job_filter import CANCEL, MOST_JOBS, REDRIVE, CancelRequest, RedriveRequest
from jobtape.settings import read_settings

if TYPE_CHECKING:
    from jobtape.consumer.replays.bulk import Action


class BulkResult(BaseModel):
    """The result of a bulk action. ``accepted`` and ``already`` add up to ``matched``."""

    matched: int = Field(description="The number of jobs that matched.")
    accepted: int = Field(description="How many of them were redriven or cancelled.")
    already: int = Field(description="How many had ended, or were removed, before that.")


@job(REDRIVE, **BUILTIN)
async def redrive(ctx: Context, request: RedriveRequest) -> BulkResult:
    """Run all ended jobs again that match."""
    from jobtape.consumer.replays import bulk  # noqa: PLC0415

    return await _run(ctx, bulk.REDRIVE, request)


@job(CANCEL, **BUILTIN)
async def cancel(ctx: Context, request: CancelRequest) -> BulkResult:
    """Cancel all open jobs that match."""
    from jobtape.consumer.replays import bulk  # noqa: PLC0415

    return await _run(ctx, bulk.CANCEL, request)


async def _run(ctx: Context, action: "Action", request: RedriveRequest | CancelRequest) -> BulkResult:
    # Imported here: a program that only submits the job needs neither AMQP nor SQL.
    from jobtape.consumer.replays.bulk import Bulk, run_bulk  # noqa: PLC0415
    from jobtape.view.store import JobQuery, Store  # noqa: PLC0415

    settings = read_settings()
    with slice_of(ctx, "jobs") as part, closing(Store(settings.database_url)) as store:
        # Identified by the run: a redriven bulk job acts on what matches then.
        query = JobQuery.of(request, request.limit or MOST_JOBS)
        wanted = Bulk(ctx.idempotency_key, action, query, ctx.event_id)
        state = await run_bulk(settings.rabbitmq_url, topology_of(settings), store, wanted, part)
    matched, accepted = state["matched"], state["accepted"]
    return BulkResult(matched=matched, accepted=accepted, already=matched - accepted)
