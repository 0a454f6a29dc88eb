"""The queues of the broker in memory: queues whose messages are settled, and streams that are read from an offset."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pamqp.commands import Basic

Deliver = Callable[["Consumer", int, "Message"], None]
"""Hands a message with this delivery tag to a consumer's client."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message. ``keys``: the routing key, then those of its ``CC`` header. ``count``: how many deliveries failed."""

    body: bytes
    keys: tuple[str, ...]
    properties: Basic.Properties
    count: int = 0

    def with_header(self, name: str, value: Any) -> "Message":
        """Return a copy with one more header."""
        old = self.properties
        properties = Basic.Properties(
            content_type=old.content_type,
            headers={**(old.headers or {}), name: value},
            delivery_mode=old.delivery_mode,
            message_id=old.message_id,
        )
        return replace(self, properties=properties)


@dataclass(eq=False, slots=True)
class Consumer:
    """A consumer of one queue. ``next_tag`` returns the next delivery tag of its channel. ``prefetch``: 0 means no
    limit.
    """

    queue: "Queue | Stream"
    next_tag: Callable[[], int]
    deliver: Deliver
    prefetch: int
    no_ack: bool = False
    offset: int = 0
    """Of a stream: of the next message."""
    open: dict[int, Message] = field(default_factory=dict)
    """The deliveries that are not settled, by their tags."""
    lost: set[int] = field(default_factory=set)
    """Those whose acknowledgement was lost."""

    @property
    def has_room(self) -> bool:
        """Whether it may get one more delivery."""
        return not self.prefetch or len(self.open) < self.prefetch

    def give(self, message: Message) -> None:
        """Deliver a message."""
        tag = self.next_tag()
        if not self.no_ack:
            self.open[tag] = message
        self.deliver(self, tag, message)


@dataclass(eq=False, slots=True)
class Queue:
    """A queue. While ``held``, nothing is delivered. ``disorder`` chooses the next message, if it is not the oldest."""

    name: str
    arguments: Mapping[str, Any]
    auto_delete: bool = False
    held: bool = False
    disorder: random.Random | None = None
    loses_ack: Callable[[Message], bool] = lambda message: False
    """Whether the acknowledgement of this message is lost, as if the worker had died before it."""
    give_up: Callable[["Queue", Message], None] = lambda queue, message: None
    """Is called with a message that was returned more often than the queue's limit allows."""
    messages: deque[Message] = field(default_factory=deque)
    consumers: list[Consumer] = field(default_factory=list)

    def push(self, message: Message) -> None:
        """Add a message. A queue with a length limit drops its oldest."""
        self.messages.append(message)
        most = self.arguments.get("x-max-length")
        if most is not None and len(self.messages) > most:
            self.messages.popleft()
        self.deliver()

    def deliver(self) -> None:
        """Deliver what consumers have room for, to one after the other."""
        while self.messages and not self.held:
            consumer = next((each for each in self.consumers if each.has_room), None)
            if consumer is None:
                return
            self.consumers.remove(consumer)
            self.consumers.append(consumer)
            if self.disorder is not None:
                self.messages.rotate(-self.disorder.randrange(len(self.messages)))
            message = self.messages.popleft()
            consumer.give(message.with_header("x-delivery-count", message.count) if message.count else message)

    def settle(self, consumer: Consumer, tag: int, *, requeue: bool, failed: bool) -> None:
        """Settle a delivery. ``requeue``: return it. ``failed``: then it counts towards the limit of deliveries."""
        if not requeue and (tag in consumer.lost or self.loses_ack(consumer.open[tag])):
            consumer.lost.add(tag)
            return
        message = consumer.open.pop(tag)
        consumer.lost.discard(tag)
        if requeue:
            message = replace(message, count=message.count + failed)
            limit = self.arguments.get("x-delivery-limit")
            if limit is not None and message.count > limit:
                self.give_up(self, message)
            else:
                self.messages.appendleft(message)
        self.deliver()

    @property
    def left(self) -> int:
        """How many messages wait or are not settled, without those whose acknowledgement was lost."""
        return len(self.messages) + sum(len(each.open) - len(each.lost) for each in self.consumers)

    @property
    def lost(self) -> int:
        """How many acknowledgements were lost."""
        return sum(len(consumer.lost) for consumer in self.consumers)


@dataclass(eq=False, slots=True)
class Stream:
    """A stream: its messages stay."""

    name: str
    arguments: Mapping[str, Any]
    messages: list[Message] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)

    def push(self, message: Message) -> None:
        """Add a message."""
        self.messages.append(message)
        self.deliver()

    def start(self, consumer: Consumer, offset: Any) -> None:
        """Let a consumer begin at ``offset``: a number, ``"first"`` or ``"last"``."""
        last = max(0, len(self.messages) - 1)
        consumer.offset = {"first": 0, "last": last}.get(offset, offset)

    def deliver(self) -> None:
        """Deliver to each consumer the messages that it has room for."""
        for consumer in list(self.consumers):
            while consumer.offset < len(self.messages) and consumer.has_room:
                message = self.messages[consumer.offset].with_header("x-stream-offset", consumer.offset)
                consumer.offset += 1
                consumer.give(message)

    def settle(self, consumer: Consumer, tag: int, *, requeue: bool, failed: bool) -> None:
        """Make room for another delivery."""
        del requeue, failed  # a stream's message is never returned
        del consumer.open[tag]
        self.deliver()
