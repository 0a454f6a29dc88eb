"""Random namespaces on the broker, with short delay ladders, because declaring a whole ladder takes long."""

from uuid import uuid4

from jobtape.schemas.topology import Topology

FEW_LEVELS = 8
"""Levels of the delay ladder: up to 25 s."""


def some_topology(*queues: str, namespace: str | None = None, delay_levels: int = FEW_LEVELS) -> Topology:
    """Return a topology with these queues, or with ``default`` only."""
    name = namespace or f"test-{uuid4().hex[:10]}"
    return Topology(name, delay_levels=delay_levels).with_queues(queues or ("default",))


def environment_for(url: str, topology: Topology) -> dict[str, str]:
    """Return the environment for a process of Jobtape in that namespace."""
    return {
        "RABBITMQ_URL": url,
        "JOBTAPE_NAMESPACE": topology.namespace,
        "JOBTAPE_DELAY_LEVELS": str(topology.delay_levels),
    }
