"""The broker in memory: exchanges, bindings and queues. It is used from several threads and event loops.

What it has of RabbitMQ: direct, fan-out and topic exchanges with the keys of ``CC``, quorum and classic queues with
prefetch, returns and dead letters, streams that are read from an offset, confirms and returned messages. What it does
not have: restarts, lost connections, alarms, policies, refusals, expiry, and limits of bytes.
"""

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from pamqp.commands import Basic

from jobtape.schemas import plainjson
from jobtape.schemas.topology import Topology
from jobtape.testing.broker.queues import Consumer, Message, Queue, Stream


@dataclass(eq=False)
class MemoryBroker:
    """All messages of one installation. The work queues of ``topology`` are held at first: see ``hold``."""

    topology: Topology
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Whoever uses the queues holds it."""
    queues: dict[str, Queue | Stream] = field(default_factory=dict)
    _exchanges: dict[str, str] = field(default_factory=dict)
    """The type of each exchange."""
    _bindings: dict[str, dict[tuple[str, str], None]] = field(default_factory=dict)
    """By exchange: key and queue."""
    _held: bool = True
    _disorder: random.Random | None = None
    _losing: set[str] = field(default_factory=set)

    def has_exchange(self, name: str) -> bool:
        """Return whether an exchange is declared."""
        return name in self._exchanges

    def declare_exchange(self, name: str, kind: str) -> None:
        """Declare an exchange."""
        self._exchanges.setdefault(name, kind)

    def declare_queue(self, name: str, arguments: Mapping[str, Any], *, auto_delete: bool = False) -> Queue | Stream:
        """Declare a queue, and return it. Without a name it gets a new one."""
        name = name or f"amq.gen-{uuid4().hex}"
        if name not in self.queues:
            if arguments.get("x-queue-type") == "stream":
                self.queues[name] = Stream(name, arguments)
            else:
                queue = self.queues[name] = Queue(name, arguments, auto_delete, give_up=self._give_up)
                if queue in self._work_queues():
                    queue.held, queue.disorder, queue.loses_ack = self._held, self._disorder, self._loses_ack
        return self.queues[name]

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Bind a queue."""
        self._bindings.setdefault(exchange, {})[key, queue] = None

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its bindings."""
        self.queues.pop(name, None)
        for bound in self._bindings.values():
            for each in [each for each in bound if each[1] == name]:
                del bound[each]

    def publish(self, exchange: str, key: str, message: Message) -> bool:
        """Put a message on the queues that its keys lead to, once on each. Return whether there is one."""
        found = self._route(exchange, (key, *message.keys[1:]))
        for queue in found:
            queue.push(message)
        return bool(found)

    def hold(self, held: bool) -> None:
        """Deliver no work from now on, or deliver it."""
        with self.lock:
            self._held = held
            for queue in self._work_queues():
                queue.held = held
                queue.deliver()

    def disorder(self, seed: int) -> None:
        """Deliver work in another order from now on, which follows from ``seed``."""
        with self.lock:
            self._disorder = random.Random(seed)  # noqa: S311 - it has to be repeatable
            for queue in self._work_queues():
                queue.disorder = self._disorder

    def lose_ack(self, job_id: str) -> None:
        """Lose the next acknowledgement of this job's work."""
        with self.lock:
            self._losing.add(job_id)

    def put_again(self, job_id: str) -> bool:
        """Put the work of a job that was placed last on its queue once more. Return whether there was any."""
        with self.lock:
            tape = self.queues[self.topology.log.name]
            for message in reversed(tape.messages):
                routed = self._route(self.topology.events.name, message.keys)
                work = [queue for queue in self._work_queues() if queue in routed]
                if work and _job_of(message) == job_id:
                    work[0].push(replace(message, count=message.count + 1))
                    return True
        return False

    def left(self) -> int:
        """Return how much work waits or is not settled, without that whose acknowledgement was lost."""
        with self.lock:
            return sum(queue.left for queue in self._work_queues())

    def lost(self) -> int:
        """Return how many acknowledgements were lost."""
        with self.lock:
            return sum(queue.lost for queue in self._work_queues())

    def _loses_ack(self, message: Message) -> bool:
        if self._losing and (job_id := _job_of(message)) in self._losing:
            self._losing.remove(job_id)
            return True
        return False

    def _work_queues(self) -> list[Queue]:
        names = [self.topology.work_queue(queue).name for queue in self.topology.queues]
        return [each for name in names if isinstance(each := self.queues.get(name), Queue)]

    def _route(self, exchange: str, keys: tuple[str, ...]) -> list[Queue | Stream]:
        if exchange == "":
            names = [key for key in keys if key in self.queues]
        else:
            kind = self._exchanges.get(exchange, "direct")
            bound = self._bindings.get(exchange, {})
            names = [queue for pattern, queue in bound if any(_matches(kind, pattern, key) for key in keys)]
        return [self.queues[name] for name in dict.fromkeys(names)]

    def _give_up(self, queue: Queue, message: Message) -> None:
        key = str(queue.arguments.get("x-dead-letter-routing-key", message.keys[0]))
        death: dict[str, Any] = {"queue": queue.name, "reason": "delivery_limit", "count": 1}
        headers = {name: value for name, value in (message.properties.headers or {}).items() if name != "CC"}
        properties = Basic.Properties(headers={**headers, "x-death": [death]}, message_id=message.properties.message_id)
        dead = Message(message.body, (key,), properties)
        self.publish(str(queue.arguments.get("x-dead-letter-exchange", "")), key, dead)


def detach(broker: MemoryBroker, consumer: Consumer) -> None:
    """End a consumer. What it has not settled is returned, and counts as failed."""
    queue = consumer.queue
    if consumer in queue.consumers:
        queue.consumers.remove(consumer)
    for tag in reversed(list(consumer.open)):
        queue.settle(consumer, tag, requeue=True, failed=True)
    if isinstance(queue, Queue) and queue.auto_delete and not queue.consumers:
        broker.delete_queue(queue.name)


def _job_of(message: Message) -> str:
    """Return the id of the job that a message is about; an empty text for a barrier."""
    event = plainjson.loads(message.body)
    return str(event.get("subject", "")) if isinstance(event, dict) else ""


def _matches(kind: str, pattern: str, key: str) -> bool:
    if kind == "fanout":
        return True
    return pattern == key if kind == "direct" else _matches_topic(pattern.split("."), key.split("."))


def _matches_topic(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches_topic(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches_topic(pattern[1:], words[1:])
