"""Random namespaces on the broker."""

from uuid import uuid4

from jobtape.schemas.topology import Topology


def some_topology(*queues: str, namespace: str | None = None) -> Topology:
    """Return a topology with these queues, or with ``default`` only."""
    return Topology(namespace or f"test-{uuid4().hex[:10]}").with_queues(queues or ("default",))


def environment_for(url: str, topology: Topology) -> dict[str, str]:
    """Return the environment for a process of Jobtape in that namespace."""
    return {"RABBITMQ_URL": url, "JOBTAPE_NAMESPACE": topology.namespace}
