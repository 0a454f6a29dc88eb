"""The exchanges, queues, bindings and routing keys of one installation. ``broker.declare`` declares them.

One direct exchange takes every event. All have the same key, to which the stream ``log`` is bound. Each work queue is
bound to its own key, which a publish has as a second key in its ``CC`` header. A confirm means that the tape and the
work queue have the message. Without one, either may have it alone: see ``broker.publisher``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

EVENT_KEY: Final = "event"
BARRIER_KEY: Final = "barrier"
"""The keys of everything on the tape."""
CANCEL_KEY: Final = "cancel"
"""The second key of what every worker has to know: a ``cancelled``, and the beginning of a pause."""
# Longer than work may wait on its queue: only work that was placed before the cancellation needs it. Segments are
# small, because only whole ones are dropped for their age, and never the last.
CANCELS_KEPT: Final = "45D"
CANCELS_MAX_BYTES: Final = 500_000_000
CANCELS_SEGMENT: Final = 4_000_000
# Protects against jobs that kill their worker each time. It is no limit of attempts, because it also counts deliveries
# that were only prefetched by a worker that died.
DELIVERY_LIMIT: Final = 20
# By default RabbitMQ 4 drops a message after 20 returns; this queue must keep its own.
_KEPT: Final = (("x-queue-type", "quorum"), ("x-delivery-limit", 2**31 - 1))


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
        """Return the arguments as a dict for AMQP."""
        return dict(self.arguments)


@dataclass(frozen=True, slots=True)
class Binding:
    """Routes messages of ``exchange`` whose routing key matches ``key`` to ``queue``."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class TapeRetention:
    """How much of the tape the broker keeps: it drops whole segments, oldest first, beyond ``max_bytes`` or
    ``max_age`` (RabbitMQ's notation: a number and one of Y, M, D, h, m, s); one segment always stays.
    """

    max_bytes: int = 10_000_000_000
    max_age: str = "30D"
    segment_bytes: int = 100_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a subscriber's queue: above ``messages`` or ``octets`` it drops its oldest messages, and after
    ``idle`` seconds without a consumer the broker deletes it.
    """

    messages: int = 100_000
    octets: int = 250_000_000
    idle: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything on the broker under one namespace."""

    namespace: str
    queues: tuple[str, ...] = ()
    retention: TapeRetention = TapeRetention()

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of this installation."""
        return f"/jobtape/{self.namespace}"

    @property
    def events(self) -> Exchange:
        """The exchange that takes every event. Only Jobtape publishes or binds to it."""
        return Exchange(f"{self.namespace}.events", "direct")

    @property
    def results(self) -> Exchange:
        """The exchange to which the relay publishes accepted events. Any program may bind its queue to it."""
        return Exchange(f"{self.namespace}.results", "topic")

    @property
    def committed(self) -> Exchange:
        """The exchange to which the projector publishes a notification after each commit, for API processes."""
        return Exchange(f"{self.namespace}.committed", "fanout")

    @property
    def workers(self) -> Exchange:
        """The exchange to which workers publish their signs of life, for the active projector."""
        return Exchange(f"{self.namespace}.workers", "fanout")

    @property
    def dead(self) -> Exchange:
        """The exchange for messages that are no job, and for those that the broker gave up."""
        return Exchange(f"{self.namespace}.dead", "fanout")

    @property
    def log(self) -> Queue:
        """The tape."""
        kept = self.retention
        return _stream(f"{self.namespace}.log", kept.max_bytes, kept.max_age, kept.segment_bytes)

    @property
    def cancels(self) -> Queue:
        """The stream of cancelled runs and of pauses, which every worker reads before it takes jobs."""
        return _stream(f"{self.namespace}.cancels", CANCELS_MAX_BYTES, CANCELS_KEPT, CANCELS_SEGMENT)

    @property
    def dead_queue(self) -> Queue:
        """The queue of ``dead``."""
        return Queue(f"{self.namespace}.dead", _KEPT)

    def work_queue(self, queue: str) -> Queue:
        """Return the quorum queue that holds the jobs of ``queue``."""
        return Queue(
            f"{self.namespace}.run.{queue}",
            (
                ("x-queue-type", "quorum"),
                ("x-delivery-limit", DELIVERY_LIMIT),
                ("x-dead-letter-exchange", self.dead.name),
                # Without a fixed key the broker would use the message's own keys, with those in CC, and route it back
                # here.
                ("x-dead-letter-routing-key", "given-up"),
                ("x-dead-letter-strategy", "at-least-once"),
                ("x-overflow", "reject-publish"),
            ),
        )

    def subscription_name(self, name: str) -> str:
        """Return the name on the broker of the queue of the durable subscription ``name``."""
        return f"{self.namespace}.sub.{name}"

    def subscription_of(self, queue: str) -> str | None:
        """Return the name of the durable subscription whose queue has this name on the broker; None if it is another
        queue.
        """
        prefix = self.subscription_name("")
        return queue.removeprefix(prefix) if queue.startswith(prefix) else None

    def subscription_queue(self, name: str, wanted: str, bounds: Bounds) -> Queue:
        """Return the queue of the durable subscription ``name``. ``wanted`` is its filter as text of at most 250 bytes.

        The filter is in the dead-letter routing key, because the broker compares this argument when the queue is
        declared again. So consumers of the same subscription cannot have different filters. Messages that a full queue
        drops go to the exchange ``<ns>.dropped``, if an operator has declared it.
        """
        return Queue(
            self.subscription_name(name),
            (
                ("x-queue-type", "quorum"),
                # Otherwise RabbitMQ 4 drops a message after 20 returns.
                ("x-delivery-limit", 2**31 - 1),
                ("x-dead-letter-exchange", f"{self.namespace}.dropped"),
                ("x-dead-letter-routing-key", wanted),
                *_bounded(bounds),
            ),
        )

    def ephemeral_queue(self, unique: str, bounds: Bounds) -> Queue:
        """Return the queue of one ephemeral subscription. It outlives its connection by ``bounds.idle`` seconds."""
        return Queue(f"{self.namespace}.hear.{unique}", (("x-queue-type", "classic"), *_bounded(bounds)))

    def exchanges(self) -> tuple[Exchange, ...]:
        return (self.events, self.results, self.committed, self.workers, self.dead)

    def declared_queues(self) -> tuple[Queue, ...]:
        """Return all queues except the tape, which only a first start or ``jobtape init`` creates."""
        return (self.dead_queue, self.cancels, *(self.work_queue(queue) for queue in self.queues))

    def bindings(self) -> tuple[Binding, ...]:
        """Return all bindings of queues except those of the tape."""
        return (
            Binding(self.dead_queue.name, self.dead.name, "#"),
            Binding(self.cancels.name, self.events.name, CANCEL_KEY),
            *(Binding(self.work_queue(queue).name, self.events.name, work_key(queue)) for queue in self.queues),
        )

    def is_ours(self, queue: str) -> bool:
        """Return whether ``queue`` is the name of a queue that Jobtape declares."""
        prefix, _, rest = queue.partition(".")
        alone = rest in ("log", "cancels", "dead")
        return prefix == self.namespace and (alone or rest.startswith(("run.", "sub.", "hear.")))

    @property
    def log_bindings(self) -> tuple[Binding, ...]:
        """Return the bindings of the tape."""
        return tuple(Binding(self.log.name, self.events.name, key) for key in (EVENT_KEY, BARRIER_KEY))

    def with_queues(self, queues: Iterable[str]) -> "Topology":
        return replace(self, queues=tuple(sorted(set(queues))))


def result_key(event: str, job_type: str) -> str:
    """Return the routing key of an event that is relayed to subscribers."""
    return f"{event}.{job_type}"


def result_patterns(events: Iterable[str], types: Iterable[str]) -> tuple[str, ...]:
    """Binding keys for these events of these job types (``mail.*``: all that begin with ``mail.``); empty means any.

    They may match more events, but never fewer.
    """
    names = sorted(set(events)) or ["*"]
    kinds = sorted({f"{each[:-2]}.#" if each.endswith(".*") else each for each in types}) or ["#"]
    if (names, kinds) == (["*"], ["#"]):
        return ("#",)
    return tuple(f"{name}.{kind}" for name in names for kind in kinds)


def reply_key(name: str) -> str:
    """Return the second key of the events of a job with ``reply_to`` ``name``."""
    return f"reply.{name}"


def queue_of(name: str) -> str:
    """Return Jobtape's name of a work queue, from its name on the broker."""
    return name.partition(".run.")[2]


def work_key(queue: str) -> str:
    """Return the second key that routes a job to its work queue."""
    return f"run.{queue}"


def _stream(name: str, max_bytes: int, max_age: str, segment_bytes: int) -> Queue:
    return Queue(
        name,
        (
            ("x-queue-type", "stream"),
            ("x-max-length-bytes", max_bytes),
            ("x-max-age", max_age),
            ("x-stream-max-segment-size-bytes", segment_bytes),
        ),
    )


def _bounded(bounds: Bounds) -> tuple[tuple[str, str | int], ...]:
    return (
        ("x-max-length", bounds.messages),
        ("x-max-length-bytes", bounds.octets),
        ("x-overflow", "drop-head"),
        ("x-expires", round(bounds.idle * 1000)),
    )
