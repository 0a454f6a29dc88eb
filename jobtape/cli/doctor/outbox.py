"""What ``jobtape doctor`` finds out about the outbox of an application's database, if one is named."""

from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from jobtape.cli.doctor.findings import Findings
from jobtape.outbox import rows
from jobtape.outbox.engine import opened_engine
from jobtape.outbox.forwarder import fault_of
from jobtape.settings import Settings

OLD: Final = 60.0
"""Seconds after which a row should have been forwarded, even if a forwarder died with it."""


def examine_outbox(found: Findings, settings: Settings) -> None:
    """Add how many jobs wait to be forwarded, and for how long. Raises JobtapeError for a wrong URL."""
    with opened_engine(settings.outbox_url) as engine:
        if engine is None:
            return
        try:
            with engine.begin() as connection:
                state, oldest = rows.state(connection), rows.longest_wait(connection)
        except SQLAlchemyError as error:
            found.wrong("outbox", fault_of(error), "see JOBTAPE_OUTBOX_URL")
            return
    if state.refused:
        found.wrong(
            "outbox",
            f"{state.refused} jobs cannot be published",
            "`jobtape outbox --list` says why; deploy what they need, or give one up with --remove ID",
        )
    waiting = state.depth - state.refused
    if oldest is not None and oldest > OLD + 2 * settings.publish_timeout:
        found.wrong(
            "outbox",
            f"{waiting} jobs wait, the oldest for {oldest:.0f} s",
            "start a forwarder: `jobtape outbox`, `jobtape api` with JOBTAPE_OUTBOX_URL, or your application with "
            "jobtape.lifespan(outbox=engine)",
        )
    elif not state.refused:
        found.fine("outbox", f"{waiting} jobs wait to be forwarded")
