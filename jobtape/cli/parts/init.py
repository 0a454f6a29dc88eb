"""``jobtape init``: creates what is missing on the broker and in the view, and prints what it created."""

import asyncio

import aio_pika

from jobtape.broker import declare
from jobtape.broker.connection_errors import describe_connection_error, reason_of
from jobtape.broker.link import BROKER_ERRORS, CONNECT_TIMEOUT
from jobtape.cli import log_output as logs
from jobtape.cli.errors import CannotStart
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import configuring, job_types_of, settings_with, topology_of
from jobtape.schemas.errors import BrokerUnavailable, DatabaseUnfit, ViewUnavailable
from jobtape.schemas.topology import Topology
from jobtape.schemas.urls import without_password
from jobtape.view.store import Store


def run_init(*, accept_gap: bool, **options: str | None) -> None:
    """Create what is missing and change nothing else. Raises JobtapeError when broker or database do not answer."""
    settings = settings_with(**options)
    logs.configure("init", settings.log_level)
    topology = topology_of(settings, job_types_of(settings) if settings.jobs else {})
    with configuring():
        store = Store(settings.database_url)
    try:
        _view(store)
        asyncio.run(_broker(settings.rabbitmq_url, topology, store))
        made = store.create_checkpoint()
        print(f"checkpoint: {'created, at the beginning of the tape' if made else 'exists already'}")
        if accept_gap:
            _accept_gap(store)
    finally:
        store.close()


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
    shown = without_password(url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await aio_pika.connect(url)
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(
            f"{describe_connection_error(url, error)}: start it, or set RABBITMQ_URL to its address"
        ) from None
    try:
        async with connection, asyncio.timeout(CONNECT_TIMEOUT * 4):
            await declare.declare(connection, topology)
            if not await declare.log_exists(connection, topology):
                await asyncio.to_thread(store.expect_fresh_tape)
            created = await declare.create_log(connection, topology)
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(
            f"the broker at {shown} stopped answering ({reason_of(error)}): see its log, then run this again"
        ) from None
    queues = ", ".join(topology.queues) or "none (no --jobs were given; api and worker declare theirs)"
    print(f"broker {shown}: exchanges and queues exist; work queues: {queues}")
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
