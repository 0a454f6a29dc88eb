"""``jobtape init``: creates what is missing on the broker and in the view, and prints what it created."""

import asyncio
from typing import Final

from jobtape.broker import declare
from jobtape.broker.link import connected
from jobtape.cli import log_output as logs
from jobtape.cli.errors import CannotStart
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import job_types_of, opened_view, settings_with, topology_of
from jobtape.schemas.errors import DatabaseUnfit, ViewUnavailable
from jobtape.schemas.topology import Topology
from jobtape.schemas.urls import without_password
from jobtape.view.store import Store

ANSWER_TIMEOUT: Final = 20.0
"""Seconds that declaring may take."""


def run_init(*, accept_gap: bool, **options: str | None) -> None:
    """Create what is missing and change nothing else. Raises JobtapeError when broker or database do not answer."""
    settings = settings_with(**options)
    logs.configure("init", settings.log_level)
    topology = topology_of(settings, job_types_of(settings) if settings.jobs else {})
    with opened_view(settings) as store:
        _view(store)
        asyncio.run(_broker(settings.rabbitmq_url, topology, store))
        made = store.create_checkpoint()
        print(f"checkpoint: {'created, at the beginning of the tape' if made else 'exists already'}")
        if accept_gap:
            _accept_gap(store)


def _view(store: Store) -> None:
    try:
        store.checkpoint()
        print(f"view {store.url_for_messages}: exists already")
    except DatabaseUnfit as error:
        raise CannotStart(str(error)) from None
    except ViewUnavailable:
        store.migrate()  # raises with a better message when something else than the tables is missing
        print(f"view {store.url_for_messages}: tables created or updated")


async def _broker(url: str, topology: Topology, store: Store) -> None:
    async with connected(url, ANSWER_TIMEOUT) as connection:
        await declare.declare(connection, topology)
        if not await declare.log_exists(connection, topology):
            await asyncio.to_thread(store.expect_fresh_tape)
        created = await declare.create_log(connection, topology)
    queues = ", ".join(topology.queues) or "none (no --jobs were given; api and worker declare theirs)"
    print(f"broker {without_password(url)}: exchanges and queues exist; work queues: {queues}")
    print(f"tape {topology.log.name}: {'created' if created else 'exists already'}")


def _accept_gap(store: Store) -> None:
    before = store.checkpoint()
    if before is None or before.gap is None:
        print("gap: none is reported, so there is nothing to accept (a running projector reports one within seconds)")
        return
    after = store.accept_gap()
    what = f"{before.gap.kind}: {one_line(before.gap.detail)}"
    print(
        f"gap: accepted ({what}). The projector continues with the first message that the tape has now, in epoch "
        f"{after.epoch}. The view has lost the events in the gap: jobs that were submitted there are missing, and "
        "others may keep their old state. Workers still run the jobs on their queues."
    )
