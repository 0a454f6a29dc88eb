"""``jobtape init``: creates what is missing on the broker and in the view, and prints what it created."""

import asyncio
from typing import Any, Final

from jobtape.broker import declare
from jobtape.broker.link import connected
from jobtape.cli import log_output as logs
from jobtape.cli.errors import CannotStart
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import job_types_of, opened_view, settings_with, topology_of
from jobtape.cli.printing import print_json
from jobtape.schemas.errors import DatabaseUnfit, ViewUnavailable
from jobtape.schemas.topology import Topology
from jobtape.schemas.urls import without_password
from jobtape.view.store import Store

ANSWER_TIMEOUT: Final = 20.0
"""Seconds that declaring may take."""


def run_init(*, accept_gap: bool, as_json: bool = False, **options: str | None) -> None:
    """Create what is missing and change nothing else. Raises JobtapeError when broker or database do not answer.

    Prints a line for each part as soon as it exists, or one JSON document at the end.
    """
    settings = settings_with(**options)
    logs.configure("init", settings.log_level, settings.log_format)
    topology = topology_of(settings, job_types_of(settings) if settings.jobs else {})
    done: dict[str, dict[str, Any]] = {}

    def report(part: str, line: str, **values: Any) -> None:
        done[part] = values
        if not as_json:
            print(line)

    with opened_view(settings) as store:
        made = _view(store)
        url = store.url_for_messages
        report(
            "view", f"view {url}: {'tables created or updated' if made else 'exists already'}", url=url, created=made
        )
        made = asyncio.run(_broker(settings.rabbitmq_url, topology, store))
        url = without_password(settings.rabbitmq_url)
        queues = ", ".join(topology.queues) or "none (no --jobs were given; api and worker declare theirs)"
        line = f"broker {url}: exchanges and queues exist; work queues: {queues}"
        report("broker", line, url=url, queues=list(topology.queues))
        name = topology.log.name
        report("tape", f"tape {name}: {'created' if made else 'exists already'}", name=name, created=made)
        made = store.create_checkpoint()
        line = f"checkpoint: {'created, at the beginning of the tape' if made else 'exists already'}"
        report("checkpoint", line, created=made)
        if accept_gap:
            accepted, line = _accept_gap(store)
            report("gap", line, accepted=accepted)
    if as_json:
        print_json(done)


def _view(store: Store) -> bool:
    """Create or update the tables if needed. Returns whether it did."""
    try:
        store.checkpoint()
    except DatabaseUnfit as error:
        raise CannotStart(str(error)) from None
    except ViewUnavailable:
        store.migrate()  # raises with a better message when something else than the tables is missing
        return True
    return False


async def _broker(url: str, topology: Topology, store: Store) -> bool:
    """Declare what is missing on the broker. Returns whether the tape is new."""
    async with connected(url, ANSWER_TIMEOUT) as connection:
        await declare.declare(connection, topology)
        if not await declare.log_exists(connection, topology):
            await asyncio.to_thread(store.expect_fresh_tape)
        return await declare.create_log(connection, topology)


def _accept_gap(store: Store) -> tuple[bool, str]:
    """Accept the gap. Returns whether there was one, and what to print."""
    before = store.checkpoint()
    if before is None or before.gap is None:
        what = "none is reported, so there is nothing to accept (a running projector reports one within seconds)"
        return False, f"gap: {what}"
    after = store.accept_gap()
    what = f"{before.gap.kind}: {one_line(before.gap.detail)}"
    return True, (
        f"gap: accepted ({what}). The projector continues with the first message that the tape has now, in epoch "
        f"{after.epoch}. The view has lost the events in the gap: jobs that were submitted there are missing, and "
        "others may keep their old state. Workers still run the jobs on their queues."
    )
