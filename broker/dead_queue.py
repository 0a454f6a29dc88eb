"""Puts a message aside that nobody can work on, with the reason."""

from uuid import uuid4

from aiormq import spec

from jobtape.broker.channels import channel
from jobtape.broker.confirmed_channel import PERSISTENT
from jobtape.broker.link import Link
from jobtape.schemas.topology import Topology

REASON_HEADER = "jobtape-reason"


async def publish_dead(link: Link, topology: Topology, body: bytes, reason: str) -> None:
    """Publish ``body`` to the dead exchange, confirmed. Raises one of ``BROKER_ERRORS``.

    On a channel of its own: the publisher's channel publishes to one exchange only. Headers are not copied: ``CC``
    and ``x-death`` would send it on its way again.
    """
    properties = spec.Basic.Properties(
        headers={REASON_HEADER: reason[:500]}, message_id=uuid4().hex, delivery_mode=PERSISTENT
    )
    async with channel(await link.connection(), confirms=True) as opened:
        await opened.basic_publish(
            body, exchange=topology.dead.name, routing_key="no-job", properties=properties, mandatory=True
        )
