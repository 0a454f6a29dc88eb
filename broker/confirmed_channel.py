"""Publishes to one exchange over one channel with confirms, in bulk.

Theory of operation. What one pass of the event loop publishes is gathered, written to the connection in one piece, and
confirmed in bulk. That costs a message a fraction of what it costs by itself, here and on the broker.

One exchange for one channel, since before RabbitMQ 4.0 a stream's leader change confuses the confirms of a channel that
publishes to several (rabbitmq-server#12236). One channel for all messages, as each costs the broker a process.

Not everything is written at once: while ``MAX_UNCONFIRMED`` messages are unconfirmed, because the broker is slow or has
an alarm, further ones stay here. Those whose waiters have gone by then are never written.

This leans on inner parts of aiormq (``INNER_PARTS``). Where a version of aiormq lacks one of them, aiormq publishes
each message by itself.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Final, cast
from weakref import WeakSet

import aiormq
import aiormq.exceptions
from aiormq import spec
from aiormq.abc import ConfirmationFrameType
from pamqp.header import ContentHeader

from jobtape.broker.channels import open_channel
from jobtape.broker.frames import FrameWriter, is_open, publish_frames
from jobtape.broker.link import BROKER_ERRORS, Link
from jobtape.broker.tasks import cancel_and_wait, translate_cancellation

INNER_PARTS: Final = ("_on_confirm_frame", "_on_return_frame", "_get_frame", "_read_content")
"""Methods of aiormq's channel that are replaced or called (aiormq 7.2)."""
IN_BULK: Final = all(hasattr(aiormq.Channel, name) for name in INNER_PARTS)
ABANDONED_CHECK: Final = 0.5
"""Seconds after which opening a channel ends when nobody waits for it any more."""
MAX_UNCONFIRMED: Final = 5000
MAX_UNCONFIRMED_BYTES: Final = 2**24
"""Unconfirmed messages of one channel, and the bytes of their bodies, up to which more are written."""
FIRST_SWEEP: Final = 1000
"""Waiting messages from which those that nobody waits for any more are removed."""


_channels: "WeakSet[ConfirmedChannel]" = WeakSet()


def unconfirmed() -> int:
    """Return how many messages of this process are not confirmed yet."""
    return sum(channel.unconfirmed for channel in _channels)


@dataclass(slots=True)
class _Message:
    body: bytes
    key: str
    properties: spec.Basic.Properties
    mandatory: bool
    confirmed: "asyncio.Future[None]"


class ConfirmedChannel:
    """Publishes to ``exchange`` (the default exchange: ``""``) over ``link``.

    ``renew``: open another channel after a refusal. On RabbitMQ 3.10 a queue that has refused a channel's message goes
    on to refuse them by that channel when its limit is lifted, or it is purged (*tried*); a fresh one is not affected.
    """

    def __init__(self, link: Link, exchange: str, *, renew: bool = False) -> None:
        self.link = link
        self.exchange = exchange
        self._renew = renew
        self._gathered: deque[_Message] = deque()
        self._sweep_at = FIRST_SWEEP
        self._flush_planned = False
        self._channel: _OpenChannel | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        _channels.add(self)

    @property
    def unconfirmed(self) -> int:
        """How many messages wait here or on the broker for their confirm."""
        return len(self._gathered) + (0 if self._channel is None else self._channel.unconfirmed)

    def publish(
        self, body: bytes, key: str, properties: spec.Basic.Properties, *, mandatory: bool
    ) -> "asyncio.Future[None]":
        """Send a message together with what else this pass of the event loop publishes, in the order of the calls.

        The future ends when every queue to which the message was routed has it. It waits for connection and confirm as
        long as it takes; cancelling it takes the message back if it was not sent yet. A ``mandatory`` message needs a
        unique ``message_id``, by which it is recognised when it is returned.

        The future raises aiormq's PublishError when the message is ``mandatory`` and no queue was there, its
        DeliveryError when a queue refused it, others of ``BROKER_ERRORS`` when channel or connection were lost: then
        it is not known which queues have it.
        """
        loop = asyncio.get_running_loop()
        confirmed: asyncio.Future[None] = loop.create_future()
        self._gathered.append(_Message(body, key, properties, mandatory, confirmed))
        if len(self._gathered) >= self._sweep_at:
            self._sweep()
        self._plan_flush()
        return confirmed

    def _plan_flush(self) -> None:
        if self._gathered and not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _sweep(self) -> None:
        """Remove the messages that nobody waits for any more."""
        self._gathered = deque(message for message in self._gathered if not message.confirmed.done())
        # Half of them at least must be new the next time, so that a message is looked at twice on average.
        self._sweep_at = max(FIRST_SWEEP, 2 * len(self._gathered))

    def _flush(self) -> None:
        self._flush_planned = False
        if self._opening is not None or not self._gathered:
            return
        channel = self._channel
        if channel is None or not channel.is_open or not self.link.up:
            self._opening = asyncio.create_task(self._open(), name=f"open a channel to {self.exchange}")
            self._opening.add_done_callback(self._on_opened)
            return
        channel.send(self.exchange, self._gathered)

    def _on_opened(self, opening: "asyncio.Task[None]") -> None:
        self._opening = None
        error = ConnectionError("the connection was lost") if opening.cancelled() else opening.exception()
        if error is not None:
            gathered, self._gathered = self._gathered, deque()
            for message in gathered:
                _fail(message.confirmed, error)
        self._flush()

    async def _open(self) -> None:
        """Open a channel on the link's connection, unless nobody waits for it any more."""
        opening = asyncio.create_task(self._open_channel())
        try:
            while not opening.done():
                await asyncio.wait({opening}, timeout=ABANDONED_CHECK)
                self._sweep()
                if not self._gathered and not opening.done():
                    return
            self._channel = opening.result()
        finally:
            await cancel_and_wait(opening)

    async def _open_channel(self) -> "_OpenChannel":
        with translate_cancellation():
            opened = await open_channel(await self.link.connection(), confirms=True)
        return _OpenChannel(cast(aiormq.Channel, opened), self._on_refused, self._plan_flush)

    def _on_refused(self, channel: "_OpenChannel") -> None:
        if self._renew and self._channel is channel:
            self._channel = None
            closing = asyncio.create_task(channel.close_when_confirmed())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def publish_all(publishes: Sequence[Awaitable[None]], timeout: float) -> list[BaseException | None]:
    """Wait for ``publishes``. Return in their order what each one raised, None for a confirmed one.

    When none of them ends for ``timeout`` seconds, the rest is cancelled, and its outcome is a CancelledError.
    """
    clock = asyncio.get_running_loop().time
    tasks = [asyncio.ensure_future(publish) for publish in publishes]
    last, left, all_ended = clock(), len(tasks), asyncio.Event()

    # One callback for a message: ``asyncio.wait`` and ``asyncio.gather`` would each add another one.
    def note_end(_: "asyncio.Future[None]") -> None:
        nonlocal last, left
        last, left = clock(), left - 1
        if not left:
            all_ended.set()

    for task in tasks:
        task.add_done_callback(note_end)
    try:
        while left and (rest := last + timeout - clock()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await all_ended.wait()
    finally:
        for task in tasks:
            task.cancel()
    if left:
        await all_ended.wait()  # a task that is cancelled needs some passes of the event loop to end
    return [asyncio.CancelledError() if task.cancelled() else task.exception() for task in tasks]


class _OpenChannel:
    """An open channel with confirms, and the messages that it has not confirmed yet, by their delivery tags."""

    def __init__(
        self, channel: aiormq.Channel, on_refused: Callable[["_OpenChannel"], None], on_room: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._on_refused = on_refused
        self._on_room = on_room
        self._unconfirmed: OrderedDict[int, _Message] = OrderedDict()
        self._tags: dict[str, int] = {}
        """Delivery tags of mandatory messages by their message id."""
        self._unconfirmed_bytes = 0
        self._last_own_tag = 0
        self._all_confirmed = asyncio.Event()
        self._writer = FrameWriter(channel)
        channel.closing.add_done_callback(lambda _: self._lost())
        if IN_BULK:
            channel._on_confirm_frame = self._on_confirm  # type: ignore[method-assign]
            channel._on_return_frame = self._on_return  # type: ignore[method-assign]

    @property
    def is_open(self) -> bool:
        """Whether messages can be published over it."""
        return is_open(self._channel)

    @property
    def unconfirmed(self) -> int:
        """How many messages it has not confirmed."""
        return len(self._unconfirmed)

    def send(self, exchange: str, messages: deque[_Message]) -> None:
        """Take ``messages`` while not too much is unconfirmed, write them in one piece, and expect their confirms."""
        frames: list[bytes] = []
        while messages and len(self._unconfirmed) < MAX_UNCONFIRMED and self._unconfirmed_bytes < MAX_UNCONFIRMED_BYTES:
            message = messages.popleft()
            if message.confirmed.done():
                continue
            if not IN_BULK:
                self._publish_one(exchange, message)
                continue
            tag = self._channel.delivery_tag + 1
            try:
                frames += self._frames(exchange, message)
            except Exception as error:  # noqa: BLE001 - a key or a header that AMQP cannot carry concerns its publisher
                _fail(message.confirmed, error)
                continue
            self._channel.delivery_tag = tag
            self._expect(tag, message)
            if message.mandatory:
                self._tags[message.properties.message_id or ""] = tag
        if frames:
            self._writer.write(b"".join(frames))
            self._writer.flush()

    def _expect(self, tag: int, message: _Message) -> None:
        self._unconfirmed[tag] = message
        self._unconfirmed_bytes += len(message.body)

    def _frames(self, exchange: str, message: _Message) -> list[bytes]:
        # A broker whose frame_max is 0 has no limit.
        size = max(0, self._channel.max_content_size) or max(1, len(message.body))
        return publish_frames(
            self._channel.number,
            exchange,
            message.key,
            message.properties,
            message.body,
            mandatory=message.mandatory,
            size=size,
        )

    def _publish_one(self, exchange: str, message: _Message) -> None:
        publishing = asyncio.create_task(
            self._channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=message.key,
                properties=message.properties,
                mandatory=message.mandatory,
                wait=False,
            )
        )
        tag = self._last_own_tag = self._last_own_tag + 1
        self._expect(tag, message)
        message.confirmed.add_done_callback(lambda _: publishing.cancel())
        publishing.add_done_callback(partial(self._published_one, tag))

    def _published_one(self, tag: int, publishing: "asyncio.Task[Any]") -> None:
        if publishing.cancelled():
            self._end(tag, ConnectionError("the connection was lost"))
        else:
            self._end(tag, publishing.exception())
        self._on_room()

    async def close_when_confirmed(self) -> None:
        """Close the channel as soon as it has no unconfirmed messages."""
        while self._unconfirmed:
            self._all_confirmed.clear()
            await self._all_confirmed.wait()
        with suppress(*BROKER_ERRORS):
            await self._channel.close()

    async def _on_confirm(self, frame: ConfirmationFrameType) -> None:
        tag = frame.delivery_tag or 0
        tags = [tag]
        if getattr(frame, "multiple", False):
            tags = list(takewhile(lambda each: each <= tag, self._unconfirmed))
        for each in tags:
            refused = isinstance(frame, spec.Basic.Nack)
            self._end(each, aiormq.exceptions.DeliveryError(None, frame) if refused else None)
        self._on_room()

    async def _on_return(self, frame: spec.Basic.Return) -> None:
        """Fail a message that no queue was there for; the broker confirms it afterwards."""
        header = await self._channel._get_frame()
        assert isinstance(header, ContentHeader)
        message = await self._channel._read_content(frame, header)
        tag = self._tags.get(message.header.properties.message_id or "")
        if tag is not None:
            _fail(self._unconfirmed[tag].confirmed, aiormq.exceptions.PublishError(message, frame))

    def _end(self, tag: int, error: BaseException | None) -> None:
        message = self._unconfirmed.pop(tag, None)
        if message is None:
            return
        self._unconfirmed_bytes -= len(message.body)
        if message.mandatory:
            self._tags.pop(message.properties.message_id or "", None)
        if error is not None:
            _fail(message.confirmed, error)
        elif not message.confirmed.done():
            message.confirmed.set_result(None)
        if type(error) is aiormq.exceptions.DeliveryError:
            self._on_refused(self)
        if not self._unconfirmed:
            self._all_confirmed.set()

    def _lost(self) -> None:
        for tag in tuple(self._unconfirmed):
            self._end(tag, ConnectionError("the connection was lost"))
        self._on_room()


def _fail(confirmed: "asyncio.Future[None]", error: BaseException) -> None:
    if not confirmed.done():
        confirmed.set_exception(error)
