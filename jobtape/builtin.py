"""The job types that Jobtape brings along, for work on the view and the tape that takes long.

They run where a projector runs, which has the database, each in a process of its own. So they have what every job has:
a status, progress, a history, cancelling.
"""

import time
from contextlib import closing
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from jobtape.jobs import JobType, job
from jobtape.schemas.context import Context
from jobtape.schemas.errors import BrokerUnavailable, LogMissing, ViewUnavailable
from jobtape.schemas.jobtype import BUILTIN_QUEUE
from jobtape.schemas.position import cursor_of
from jobtape.schemas.retry import Crashed, Retry, RetryPolicy
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings, read_settings

TIMEOUT: Final = 600.0
SLICE: Final = 500.0
"""Seconds after which a job goes on in its next attempt, so that none comes near its time-out."""
ANEW: Final = RetryPolicy(
    max_attempts=1000, first=1.0, longest=30.0, on=(Crashed, ViewUnavailable, BrokerUnavailable, LogMissing)
)


class Rebuilt(BaseModel):
    """What became of a rebuild. ``states``: of the compared jobs, how many stand in which state, as
    ``serving → rebuilt``; ``examples``: jobs that differ, and field by field what was and what is.
    """

    switched: bool
    cursor: int = Field(description="The new generation was folded up to here when it was compared.")
    compared: int
    states: dict[str, int]
    changed: int
    missing: int
    added: int
    examples: list[dict[str, Any]]


@job("jobtape.rebuild", queue=BUILTIN_QUEUE, timeout=TIMEOUT, isolate=True, concurrency=1, retry=ANEW)
async def rebuild(
    ctx: Context,
    source: Literal["archive", "stream"] = "archive",
    dry_run: bool = False,
    examples: int = 10,
) -> Rebuilt:
    """Fold the whole tape into a new generation of the view, compare, and let it serve unless it is a dry run."""
    # Imported here: who only submits the job needs neither AMQP nor SQL.
    from jobtape.consumer.rebuild import Interrupted, Rebuilding  # noqa: PLC0415
    from jobtape.consumer.rebuild_stream import read_tape  # noqa: PLC0415
    from jobtape.view.store import Store  # noqa: PLC0415

    settings = read_settings()
    with closing(Store(settings.database_url)) as store:
        working = Rebuilding(store, ctx.progress, time.monotonic() + SLICE)
        try:
            checkpoint = store.checkpoint()
            if checkpoint is None:
                raise ViewUnavailable("nothing was ever folded: there is no view to rebuild")
            behind = cursor_of(checkpoint.epoch, 0) - 1 if source == "stream" else 0
            state = store.rebuilds.begin(ctx.idempotency_key, behind)
            if source == "stream":
                tape = read_tape(settings.rabbitmq_url, topology_of(settings), state.cursor, checkpoint)
                state = await working.from_stream(state, tape)
            state = working.from_archive(state)
            found = working.differences(state, examples)
            if dry_run:
                store.rebuilds.give_up()
            else:
                working.switch(state)
        except Interrupted as error:
            raise Retry(0.0, str(error)) from None
    return Rebuilt(
        switched=not dry_run,
        cursor=state.cursor,
        compared=found.compared,
        states={old if old == new else f"{old} → {new}": n for (old, new), n in sorted(found.states.items())},
        changed=found.changed,
        missing=found.missing,
        added=found.added,
        examples=[
            {
                "job": each.job_id,
                "fields": {name: [_plain(value) for value in pair] for name, pair in each.fields.items()},
            }
            for each in found.examples
        ],
    )


def topology_of(settings: Settings) -> Topology:
    """What there is on the broker, as the built-in jobs need it."""
    return settings.topology.with_queues([BUILTIN_QUEUE])


def job_types() -> dict[str, JobType]:
    """All of them, by name."""
    return {each.name: each for each in (rebuild,)}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else str(value)
