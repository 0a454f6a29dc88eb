"""``jobtape.replay``: sends past events to a queue; no job runs again."""

from contextlib import closing

from pydantic import BaseModel, Field

from jobtape.builtin.common import BUILTIN, slice_of
from jobtape.jobs import job
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.retry import Fail
from jobtape.schemas.messages.replay_request import REPLAY, ReplayRequest, reason_to_refuse
from jobtape.settings import read_settings


class Replayed(BaseModel):
    """The result of a replay."""

    events: int = Field(ge=0, description="The number of events that the broker has confirmed, each counted once.")


@job(REPLAY, **BUILTIN)
async def replay(ctx: Context, request: ReplayRequest) -> Replayed:
    """Publish past events to a queue, in the form that subscribers receive and marked as replayed."""
    from jobtape.consumer.replays.replay import Replay, replay_to_queue  # noqa: PLC0415
    from jobtape.view.store import Store  # noqa: PLC0415

    settings = read_settings()
    if (reason := reason_to_refuse(request.queue, settings.namespace)) is not None:
        raise Fail(reason)
    with slice_of(ctx, "events") as part, closing(Store(settings.database_url)) as store:
        after, until = request.cursors(store.committed.before, store.committed.reach().head)
        # Identified by the job and not the run: a redriven replay continues where it stopped.
        wanted = Replay(ctx.job_id, request.queue, after, until, request.selection(), request.rate, ctx.run)
        events = await replay_to_queue(settings.rabbitmq_url, store, wanted, part)
    return Replayed(events=events)
