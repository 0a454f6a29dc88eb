"""Where events travel: exchanges, queues and bindings as values, and the routing keys. Declared by ``broker.declare``.

One topic exchange takes everything. The stream ``log`` is bound to all of it; each work queue is bound to its own key,
which a publish carries as a second key in its ``CC`` header. So one confirmed publish writes the tape and places the
work, or does neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from jobtape.schemas import delay_ladder as ladder

BARRIER_KEY: Final = "barrier"
CANCEL_KEY: Final = "cancel"
"""The second key of a ``cancelled``, which brings it to the workers as well."""
# Longer than the longest delay (30 days), and then as long as a due job may still wait for a worker. Small segments:
# age drops whole ones only, and never the last.
CANCELS_KEPT: Final = "45D"
CANCELS_MAX_BYTES: Final = 500_000_000
CANCELS_SEGMENT: Final = 4_000_000
# A guard against jobs that kill their worker again and again, not an attempt counter: it also counts what was only
# prefetched by a worker that died.
DELIVERY_LIMIT: Final = 20
# RabbitMQ 4 drops what was returned 20 times, by default: these two are the last places there are.
_KEPT: Final = (("x-queue-type", "quorum"), ("x-delivery-limit", 2**31 - 1))


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: Literal["topic", "fanout", "direct"]
    alternate: str | None = None
    """The exchange that gets what no binding matches; without one it is returned or dropped."""


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
class ExchangeBinding:
    """What goes on from one exchange to another: messages of ``source`` whose routing key matches ``key``."""

    source: str
    target: str
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
    """What a subscriber's queue may cost the broker: beyond so many ``messages`` or ``octets`` that wait it drops its
    oldest, and after ``idle`` seconds without a consumer it is removed.
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
    delay_levels: int = ladder.LEVELS
    """Levels of the delay ladder; 0 is none."""

    @property
    def source(self) -> str:
        """The CloudEvents ``source`` of this installation."""
        return f"/jobtape/{self.namespace}"

    @property
    def events(self) -> Exchange:
        """The exchange that takes every event; nobody outside publishes to it or binds to it."""
        return Exchange(f"{self.namespace}.events", "topic")

    @property
    def results(self) -> Exchange:
        """Where the relay publishes what the fold accepted. Anybody may bind a queue of theirs to it."""
        return Exchange(f"{self.namespace}.results", "topic")

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
    def cancels(self) -> Queue:
        """The stream of the cancelled runs, about a million, which every worker reads before it takes jobs."""
        return Queue(
            f"{self.namespace}.cancels",
            (
                ("x-queue-type", "stream"),
                ("x-max-length-bytes", CANCELS_MAX_BYTES),
                ("x-max-age", CANCELS_KEPT),
                ("x-stream-max-segment-size-bytes", CANCELS_SEGMENT),
            ),
        )

    @property
    def dead_queue(self) -> Queue:
        """Keeps what ``dead`` took until somebody looks."""
        return Queue(f"{self.namespace}.dead", _KEPT)

    @property
    def due(self) -> Exchange:
        """Where delayed work comes out; not the events exchange, or it would be on the tape a second time."""
        return Exchange(f"{self.namespace}.due", "topic", alternate=self.unroutable.name)

    @property
    def unroutable(self) -> Exchange:
        """Takes what is due for a work queue that is not there."""
        return Exchange(f"{self.namespace}.unroutable", "fanout")

    @property
    def unroutable_queue(self) -> Queue:
        """Keeps what ``unroutable`` took until the work queue is there again."""
        return Queue(f"{self.namespace}.unroutable", _KEPT)

    @property
    def longest_delay(self) -> float:
        """Seconds that a job may be delayed here."""
        return ladder.longest_delay(self.delay_levels)

    def delay_exchange(self, level: int) -> Exchange:
        """Where a delayed message enters ``level``; below level 0 it is due."""
        return Exchange(f"{self.namespace}.delay.{level}", "topic") if level >= 0 else self.due

    def delay_queue(self, level: int) -> Queue:
        """Holds a message for the time of ``level`` and passes it on with its routing keys as they are."""
        return Queue(
            f"{self.namespace}.delay.{level}",
            (
                ("x-queue-type", "quorum"),
                ("x-message-ttl", ladder.held_for(level)),
                ("x-dead-letter-exchange", self.delay_exchange(level - 1).name),
                ("x-dead-letter-strategy", "at-least-once"),
                ("x-overflow", "reject-publish"),
            ),
        )

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

    def subscription_name(self, name: str) -> str:
        """What the queue of the durable subscription ``name`` is called on the broker."""
        return f"{self.namespace}.sub.{name}"

    def subscription_queue(self, name: str, wanted: str, bounds: Bounds) -> Queue:
        """The queue of the durable subscription ``name``, whose filter ``wanted`` says in words, 250 bytes at most.

        The broker compares arguments when a queue is declared again, and only those that it knows: so the filter goes
        into one of them, and consumers that share a name cannot have different ones. What a full queue drops is routed
        by it to the exchange ``<ns>.dropped``, which only exists when somebody wants to see that.
        """
        return Queue(
            self.subscription_name(name),
            (
                ("x-queue-type", "quorum"),
                # What is put back again and again (20 times on RabbitMQ 4) is not to be dropped.
                ("x-delivery-limit", 2**31 - 1),
                ("x-dead-letter-exchange", f"{self.namespace}.dropped"),
                ("x-dead-letter-routing-key", wanted),
                *_bounded(bounds),
            ),
        )

    def passing_queue(self, unique: str, bounds: Bounds) -> Queue:
        """The queue of one ephemeral subscription; it outlives its connection by ``bounds.idle``."""
        return Queue(f"{self.namespace}.hear.{unique}", (("x-queue-type", "classic"), *_bounded(bounds)))

    def exchanges(self) -> tuple[Exchange, ...]:
        """All exchanges."""
        levels = (self.delay_exchange(level) for level in self._levels)
        return (self.events, self.results, self.dead, self.unroutable, self.due, *levels)

    def declared_queues(self) -> tuple[Queue, ...]:
        """All queues but the tape, which only a first start or ``jobtape init`` creates."""
        return (
            self.dead_queue,
            self.unroutable_queue,
            self.cancels,
            *(self.work_queue(queue) for queue in self.queues),
            *(self.delay_queue(level) for level in self._levels),
        )

    def bindings(self) -> tuple[Binding, ...]:
        """All bindings of queues but the tape's."""
        delay = (
            Binding(
                self.delay_queue(level).name,
                self.delay_exchange(level).name,
                ladder.level_pattern(level, 1, self.delay_levels),
            )
            for level in self._levels
        )
        return (
            Binding(self.dead_queue.name, self.dead.name, "#"),
            Binding(self.unroutable_queue.name, self.unroutable.name, "#"),
            Binding(self.cancels.name, self.events.name, CANCEL_KEY),
            *(Binding(self.work_queue(queue).name, self.events.name, run_key(queue)) for queue in self.queues),
            *(
                Binding(self.work_queue(queue).name, self.due.name, ladder.due_pattern(queue, self.delay_levels))
                for queue in self.queues
            ),
            *delay,
        )

    def exchange_bindings(self) -> tuple[ExchangeBinding, ...]:
        """All bindings between exchanges: into the ladder, and past the levels whose bit is 0."""
        down = (
            ExchangeBinding(
                self.delay_exchange(level).name,
                self.delay_exchange(level - 1).name,
                ladder.level_pattern(level, 0, self.delay_levels),
            )
            for level in self._levels
        )
        return (
            ExchangeBinding(
                self.events.name,
                self.delay_exchange(self.delay_levels - 1).name,
                ladder.entry_pattern(self.delay_levels),
            ),
            *down,
        )

    @property
    def _levels(self) -> range:
        return range(self.delay_levels)

    def is_ours(self, queue: str) -> bool:
        """Whether we declare queues of that name, as far as the name shows."""
        prefix, _, rest = queue.partition(".")
        alone = rest in ("log", "cancels", "dead", "unroutable")
        return prefix == self.namespace and (alone or rest.startswith(("run.", "delay.", "sub.", "hear.")))

    @property
    def log_binding(self) -> Binding:
        """The tape takes everything."""
        return Binding(self.log.name, self.events.name, "#")

    def with_queues(self, queues: Iterable[str]) -> "Topology":
        """The same with these work queues."""
        return replace(self, queues=tuple(sorted(set(queues))))


def event_key(event: str, job_type: str) -> str:
    """The routing key of an event on the tape."""
    return f"event.{event}.{job_type}"


def result_key(event: str, job_type: str) -> str:
    """The routing key under which subscribers get an event."""
    return f"{event}.{job_type}"


def result_patterns(events: Iterable[str], types: Iterable[str]) -> tuple[str, ...]:
    """Binding keys for these events of these job types (``mail.*``: all that begin with ``mail.``); none means any.

    They may match a little more than was asked for, never less.
    """
    names = sorted(set(events)) or ["*"]
    kinds = sorted({f"{each[:-2]}.#" if each.endswith(".*") else each for each in types}) or ["#"]
    if (names, kinds) == (["*"], ["#"]):
        return ("#",)
    return tuple(f"{name}.{kind}" for name in names for kind in kinds)


def reply_key(name: str) -> str:
    """The second key of the events of a job that was submitted with ``reply_to`` ``name``."""
    return f"reply.{name}"


def queue_of(name: str) -> str:
    """The queue whose jobs the work queue of that name on the broker holds."""
    return name.rpartition(".")[2]


def run_key(queue: str) -> str:
    """The second key that puts a job on its work queue now."""
    return f"run.{queue}"


def _bounded(bounds: Bounds) -> tuple[tuple[str, str | int], ...]:
    return (
        ("x-max-length", bounds.messages),
        ("x-max-length-bytes", bounds.octets),
        ("x-overflow", "drop-head"),
        ("x-expires", round(bounds.idle * 1000)),
    )
