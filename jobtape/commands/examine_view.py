"""The view: its database, how far it is, and who keeps it."""

from jobtape.commands.findings import Findings
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.store import Checkpoint, Store


def examine_view(found: Findings, store: Store) -> list[str]:
    """Add what is found; the queues that unfinished jobs are on. Blocks."""
    try:
        checkpoint = store.checkpoint()
        queues = store.open_queues()
        effects, dead = store.effects_waiting(), store.dead_count()
    except ViewUnavailable as error:
        found.wrong("view", str(error), "`jobtape init` makes the tables; DATABASE_URL says where they are")
        return []
    found.fine("view", f"{store.url_for_messages} answers, its tables are of this version")
    _examine_checkpoint(found, checkpoint)
    if effects:
        found.note(
            "view",
            f"{effects} effects wait to be published (redrives, jobs put back)",
            "they are sent within seconds; if they stay, a queue is missing, or no projector runs",
        )
    if dead:
        found.note("view", f"{dead} messages that are no job were put aside", "see `jobtape dead list`")
    return queues


def _examine_checkpoint(found: Findings, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        found.wrong("view", "no projector was ever started on this database", "start `jobtape projector`")
        return
    if checkpoint.gap is not None:
        found.wrong("view", f"{checkpoint.gap.kind}: {checkpoint.gap.detail}", "see docs/gaps.md")
    if checkpoint.lease_left <= 0:
        found.wrong("workers", "no projector runs, so the view stands still", "start `jobtape projector`")
    else:
        found.fine("workers", f"the projector {checkpoint.owner} keeps the view, at cursor {checkpoint.cursor}")
