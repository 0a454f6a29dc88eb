"""``jobtape.replay``: past events to a queue; nothing runs again."""

from contextlib import closing

from pydantic import BaseModel, Field

from jobtape.builtin.common import OURS, slice_of
from jobtape.jobs import job
from jobtape.schemas.context import Context
from jobtape.schemas.replay_order import REPLAY, ReplayOrder, reason_to_refuse
from jobtape.schemas.retry import Fail
from jobtape.settings import read_settings


class Replayed(BaseModel):
    """``events``: how many were sent and confirmed, each once; what was sent and not confirmed was sent again."""

    events: int = Field(ge=0)


@job(REPLAY, **OURS)
async def replay(ctx: Context, order: ReplayOrder) -> Replayed:
    """Publish past events to a queue as subscribers got them, marked as replayed, at a rate; no handler runs."""
    from jobtape.consumer.replays.replay import Replay, replay_to_queue  # noqa: PLC0415
    from jobtape.view.store import Store  # noqa: PLC0415

    settings = read_settings()
    if (reason := reason_to_refuse(order.queue, settings.namespace)) is not None:
        raise Fail(reason)
    with slice_of(ctx, "events") as part, closing(Store(settings.database_url)) as store:
        after, until = order.cursors(store.committed.before, store.committed.reach().head)
        # By the job, not the run: redriven, it goes on where it was.
        wanted = Replay(ctx.job_id, order.queue, after, until, order.selection(), order.rate, ctx.run)
        events = await replay_to_queue(settings.rabbitmq_url, store, wanted, part)
    return Replayed(events=events)
