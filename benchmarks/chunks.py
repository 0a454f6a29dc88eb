"""How many messages a stream keeps in a chunk, by which the speed of reading it is measured."""

from typing import Final

from benchmarks.brokers import Broker, Container
from tools.brokers.docker import docker
from tools.brokers.node import PrivateNode

HEADER: Final = 8
ENTRY: Final = 29
"""Bytes of an index file's head, and of its entry for each chunk (``osiris_log`` of RabbitMQ's osiris)."""


def messages_per_chunk(broker: Broker, stream: str, messages: int) -> str:
    """In words; those of a broker that is not ours cannot be counted."""
    stream = stream.replace(".", "_")  # as its folder is called
    if isinstance(broker, PrivateNode):
        indices = (broker.folder / "data").rglob(f"stream/*{stream}*/*.index")
        sizes = [path.stat().st_size for path in indices]
    elif isinstance(broker, Container):
        search = ["find", "/var/lib/rabbitmq", "-path", f"*/stream/*{stream}*/*.index", "-printf", "%s "]
        sizes = [int(size) for size in docker("exec", broker.name, *search).split()]
    else:
        return "messages per chunk: not known, the broker is not ours"
    chunks = sum((size - HEADER) // ENTRY for size in sizes)
    return f"{messages} messages in {chunks} chunks, {messages / chunks:.1f} in each"
