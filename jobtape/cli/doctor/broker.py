"""Checks the broker over AMQP: its version, missing exchanges and queues, and the backlog and consumers of queues."""

from typing import Final

import aiormq.exceptions
from aio_pika.abc import AbstractConnection

from jobtape.broker import declare
from jobtape.broker.channels import channel
from jobtape.cli.doctor.findings import Findings, first_of
from jobtape.cli.doctor.view import OpenWork
from jobtape.schemas.topology import Exchange, Topology

OLDEST = (3, 10)
NO_WORK: Final = OpenWork()


async def examine_broker(
    found: Findings, connection: AbstractConnection, topology: Topology, work: OpenWork = NO_WORK
) -> None:
    """Add findings about the broker. ``work``: what the view says about the work queues. Raises BROKER_ERRORS."""
    _examine_version(found, connection)
    missing = [exchange.name for exchange in topology.exchanges() if not await _exchange_exists(connection, exchange)]
    names = {topology.work_queue(queue).name: queue for queue in topology.queues}
    others = {queue.name for queue in (topology.log, *topology.declared_queues())} - names.keys()
    missing += [name for name in sorted(others) if await declare.depth(connection, name) is None]
    if missing:
        found.wrong(
            "broker", f"missing: {first_of(missing, 8)}", "run `jobtape init`, or restart the parts, which declare them"
        )
    else:
        found.fine("broker", "the tape, all exchanges and all queues but the work queues exist")
    for name, queue in names.items():
        await _examine_work_queue(found, connection, name, queue, work)
    await _examine_dead_letters(found, connection, topology)


def _examine_version(found: Findings, connection: AbstractConnection) -> None:
    transport = connection.transport
    properties = getattr(transport and transport.connection, "server_properties", None) or {}
    version = _text(properties.get("version", "unknown"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        found.wrong("broker", f"RabbitMQ {version} is too old", "update it to 3.10 or later")
        return
    found.fine("broker", f"{_text(properties.get('product', 'the broker'))} {version} answers")


async def _examine_work_queue(
    found: Findings, connection: AbstractConnection, name: str, queue: str, work: OpenWork
) -> None:
    depth = await declare.depth(connection, name)
    if depth is None:
        found.wrong(
            "broker",
            f"the work queue {queue} is missing ({name}): its jobs do not run",
            f"start a worker that serves it (`jobtape worker --queues {queue}`), or run `jobtape init`. Its jobs are "
            "placed again within seconds; those that a worker had begun, after JOBTAPE_RESCUE_AFTER",
        )
    elif queue in work.paused:
        found.fine("workers", f"on the paused queue {queue} {depth.messages} jobs wait")
    elif depth.consumers == 0 and depth.messages:
        found.wrong(
            "workers", f"no worker serves the queue {queue}, and {depth.messages} jobs wait", "start `jobtape worker`"
        )
    elif depth.consumers == 0:
        found.note("workers", f"no worker serves the queue {queue}, and no job waits", "start `jobtape worker`")
    else:
        found.fine("workers", f"the queue {queue} has {depth.consumers} consumers, {depth.messages} jobs wait")
    if depth is not None and not depth.messages and queue in work.with_slots:
        job_id, n = work.with_slots[queue]
        found.note(
            "broker",
            f"the queue {queue} is empty, and {n} jobs that were placed on it hold an ordering key or a slot of a "
            f"limit: they wait in a worker whose slots are all taken, or their work is lost. One of them is {job_id}",
            "see what the workers run (`jobtape workers`); work that is lost is placed again within "
            "seconds, or after JOBTAPE_RESCUE_AFTER where others consume the queue; `jobtape cancel` frees the key at "
            "once",
        )


async def _examine_dead_letters(found: Findings, connection: AbstractConnection, topology: Topology) -> None:
    dead = await declare.depth(connection, topology.dead_queue.name)
    if dead is not None and dead.messages:
        found.note(
            "broker",
            f"{dead.messages} messages wait on {topology.dead_queue.name}",
            "the projector takes them within seconds; if they stay, check that it runs and its database answers",
        )


async def _exchange_exists(connection: AbstractConnection, exchange: Exchange) -> bool:
    try:
        async with channel(connection) as opened:
            await opened.exchange_declare(exchange.name, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    return True


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
