"""Where events travel: exchanges, queues and bindings as values, and the routing keys. Declared by ``broker.declare``.

One topic exchange takes everything. The stream ``log`` is bound to all of it; each work queue is bound to its own key,
which a publish carries as a second key in its ``CC`` header. So one confirmed publish writes the tape and places the
work, or does neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

BARRIER_KEY: Final = "barrier"
# A guard against jobs that kill their worker again and again, not an attempt counter: it also counts what was only
# prefetched by a worker that died.
DELIVERY_LIMIT: Final = 20


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: Literal["topic", "fanout", "direct"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue or stream."""

    name: str
    arguments: tuple[tuple[str, str | int], ...]

    def declared_arguments(self) -> dict[str, Any]:
        """The arguments as AMQP wants them."""
        return dict(self.arguments)


@dataclass(frozen=True, slots=True)
class Binding:
    """What reaches a queue: messages of ``exchange`` whose routing key matches ``key``."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the tape the broker keeps: it drops whole segments, oldest first, beyond ``max_bytes`` or
    ``max_age`` (RabbitMQ's notation: a number and one of Y, M, D, h, m, s); one segment always stays.
    """

    max_bytes: int = 10_000_000_000
    max_age: str = "30D"
    segment_bytes: int = 100_000_000


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything on the broker under one namespace."""

    namespace: str
    queues: tuple[str, ...] = ()
    retention: Retention = Retention()

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of this installation."""
        return f"/jobtape/{self.namespace}"

    @property
    def events(self) -> Exchange:
        """The exchange that takes every event; nobody outside publishes to it or binds to it."""
        return Exchange(f"{self.namespace}.events", "topic")

    @property
    def dead(self) -> Exchange:
        """Where messages go that are no job, and those that the broker gave up delivering."""
        return Exchange(f"{self.namespace}.dead", "fanout")

    @property
    def log(self) -> Queue:
        """The tape."""
        return Queue(
            f"{self.namespace}.log",
            (
                ("x-queue-type", "stream"),
                ("x-max-length-bytes", self.retention.max_bytes),
                ("x-max-age", self.retention.max_age),
                ("x-stream-max-segment-size-bytes", self.retention.segment_bytes),
            ),
        )

    @property
    def dead_queue(self) -> Queue:
        """Keeps what ``dead`` took until somebody looks."""
        return Queue(f"{self.namespace}.dead", (("x-queue-type", "quorum"),))

    def work_queue(self, queue: str) -> Queue:
        """The quorum queue that holds the jobs of ``queue``."""
        return Queue(
            f"{self.namespace}.run.{queue}",
            (
                ("x-queue-type", "quorum"),
                ("x-delivery-limit", DELIVERY_LIMIT),
                ("x-dead-letter-exchange", self.dead.name),
                # Without a fixed key the broker would use all of the message's keys, CC too, and bring it back.
                ("x-dead-letter-routing-key", "given-up"),
                ("x-dead-letter-strategy", "at-least-once"),
                ("x-overflow", "reject-publish"),
            ),
        )

    def exchanges(self) -> tuple[Exchange, ...]:
        """All exchanges."""
        return (self.events, self.dead)

    def declared_queues(self) -> tuple[Queue, ...]:
        """All queues but the tape, which only a first start or ``jobtape init`` creates."""
        return (self.dead_queue, *(self.work_queue(queue) for queue in self.queues))

    def bindings(self) -> tuple[Binding, ...]:
        """All bindings but the tape's."""
        return (
            Binding(self.dead_queue.name, self.dead.name, "#"),
            *(Binding(self.work_queue(queue).name, self.events.name, run_key(queue)) for queue in self.queues),
        )

    @property
    def log_binding(self) -> Binding:
        """The tape takes everything."""
        return Binding(self.log.name, self.events.name, "#")

    def with_queues(self, queues: Iterable[str]) -> "Topology":
        """The same with these work queues."""
        return Topology(self.namespace, tuple(sorted(set(queues))), self.retention)


def event_key(event: str, job_type: str) -> str:
    """The routing key of an event on the tape."""
    return f"event.{event}.{job_type}"


def run_key(queue: str) -> str:
    """The second key that puts a job on its work queue now."""
    return f"run.{queue}"
