"""``jobtape.rebuild``: folds the history into a new view."""

from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from jobtape.builtin.common import BUILTIN, slice_of, topology_of
from jobtape.jobs import job
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.execution.context import Context
from jobtape.settings import read_settings


class StateChange(BaseModel):
    """How many jobs have the state ``serving`` in the old view and ``rebuilt`` in the new one; null: no such job.

    ``changed``: how many of them differ in any field.
    """

    serving: str | None
    rebuilt: str | None
    jobs: int
    changed: int


class RebuildExample(BaseModel):
    """A job that differs, with the old and the new value of each field that differs."""

    job: str
    serving: str | None
    rebuilt: str | None
    fields: dict[str, tuple[Any, Any]]


class RebuildResult(BaseModel):
    """The result of a rebuild: how the jobs of the old and the new view differ, with some ``examples``."""

    switched: bool
    cursor: int = Field(description="The cursor up to which the new view was folded when it was compared.")
    compared: int
    states: list[StateChange]
    changed: int
    missing: int
    added: int
    examples: list[RebuildExample]


@job("jobtape.rebuild", concurrency=1, **BUILTIN)
async def rebuild(
    ctx: Context,
    source: Literal["archive", "stream"] = "archive",
    dry_run: bool = False,
    examples: Annotated[int, Field(ge=0, le=100)] = 10,
) -> RebuildResult:
    """Fold the whole history into a new view, compare both, and switch to the new one unless ``dry_run`` is set."""
    # Imported here: a program that only submits the job needs neither AMQP nor SQL.
    from jobtape.consumer.replays.rebuild import Rebuilder  # noqa: PLC0415
    from jobtape.consumer.replays.tape_source import TapeOvertaken, read_tape  # noqa: PLC0415
    from jobtape.view.store import Store  # noqa: PLC0415

    settings = read_settings()
    with slice_of(ctx, "events", share=0.95) as part, closing(Store(settings.database_url)) as store:
        working = Rebuilder(store, part)
        checkpoint = store.checkpoint()
        if checkpoint is None:
            raise ViewUnavailable("no projector was ever started: there is no view to rebuild")
        after = cursor_of(checkpoint.epoch, 0) - 1 if source == "stream" else 0
        state = store.rebuilds.begin(ctx.idempotency_key, after, by_job=source == "archive")
        if source == "stream":
            url, topology = settings.rabbitmq_url, topology_of(settings)
            try:
                state = await working.from_stream(state, read_tape(url, topology, state.cursor, checkpoint))
            except TapeOvertaken:  # it was interrupted for too long
                store.rebuilds.abandon(state)
                state = store.rebuilds.begin(ctx.idempotency_key, after)
                state = await working.from_stream(state, read_tape(url, topology, state.cursor, checkpoint))
        state = working.from_archive(state)
        found = working.differences(state, examples)
        if dry_run:
            working.abandon(state)
        else:
            working.switch(state)
    return RebuildResult.model_validate({"switched": not dry_run, "cursor": state.cursor, **asdict(found)})
