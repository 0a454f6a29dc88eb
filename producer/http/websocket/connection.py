"""One WebSocket connection: a task that reads requests, one task for each subscription, and one for keep-alives.

Theory of operation. A subscription is a follower with a name; it has no queue. All subscriptions share one writer and
send one after the other. A client that does not read blocks them. After ``stall`` seconds it loses the connection and
has to resume by cursor. ``sent`` is the last cursor that a subscription has sent; it increases after a message was
sent. The keep-alive carries the lowest ``sent``: a client that resumes there misses nothing of confirmed subscriptions.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_core import to_json
from starlette import status
from starlette.websockets import WebSocket

from jobtape.producer.http.websocket.requests import (
    InvalidRequest,
    MessageRefused,
    Subscribe,
    Unsubscribe,
    request_of,
)
from jobtape.producer.live.client_writer import ClientWriter
from jobtape.producer.live.follower import After, Follower, Reset, StartPosition
from jobtape.producer.live.listeners import Listeners
from jobtape.producer.service.errors import KeyRefused, TooBusy
from jobtape.schemas.access import Caller, Forbidden
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.store import CommittedEvent

MAX_SUBSCRIPTIONS: Final = 20


class ClientLeft(Exception):
    """The client has closed the connection, or it was lost."""


@dataclass(eq=False)
class _Subscription:
    name: str
    follower: Follower
    sent: int | None = None
    task: "asyncio.Task[None] | None" = None


class WebSocketConnection:
    """Serves one connection. ``keep_alive``: seconds between keep-alives; ``stall``: seconds to read one message."""

    def __init__(
        self, socket: WebSocket, listeners: Listeners, caller: Caller, *, keep_alive: float, stall: float
    ) -> None:
        self._socket = socket
        self._listeners = listeners
        self._caller = caller
        self._keep_alive = keep_alive
        self._writer = ClientWriter(socket.send_text, stall)
        self._sending = asyncio.Lock()
        self._ended = asyncio.Event()
        self._subscriptions: dict[str, _Subscription] = {}

    async def run(self, refused: Callable[[], Awaitable[None]] | None) -> None:
        """Serve the client until the process stops, or until ``refused`` returns: then this raises KeyRefused.

        Also raises a group of ClientLeft, InvalidRequest or ClientStalled.
        """
        key = None if refused is None else asyncio.ensure_future(refused())
        try:
            if key is not None:
                key.add_done_callback(lambda _: self._ended.set())
            await self._serve()
        finally:
            if key is not None:
                key.cancel()
        if key is not None and key.done():
            raise KeyRefused("the API key of the connection is not valid any more")

    async def _serve(self) -> None:
        with self._listeners.on_stop(self._ended.set, self._writer.shorten_limit):
            async with asyncio.TaskGroup() as tasks:
                others = [tasks.create_task(self._read(tasks)), tasks.create_task(self._keep_alives())]
                await self._ended.wait()
                for task in others + [each.task for each in self._subscriptions.values() if each.task is not None]:
                    task.cancel()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise ClientLeft
            try:
                match request_of(message):
                    case Subscribe() as request:
                        self._subscribe(request, tasks)
                    case Unsubscribe(id=name):
                        await self._unsubscribe(name)
            except MessageRefused as refused:
                await self._send_json({"type": "error", "id": refused.id, "detail": refused.detail})

    def _subscribe(self, request: Subscribe, tasks: asyncio.TaskGroup) -> None:
        if request.id in self._subscriptions:
            raise MessageRefused(request.id, "this id is in use: choose another one, or unsubscribe it first")
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise MessageRefused(
                request.id, f"a connection may have {MAX_SUBSCRIPTIONS} subscriptions: open another one"
            )
        start = StartPosition.NOW if request.after is None else request.after
        selection = request.selection()
        try:
            selection = replace(selection, types=frozenset(self._caller.narrow(selection.types)))
        except Forbidden as error:
            raise MessageRefused(request.id, str(error)) from None
        subscription = _Subscription(request.id, self._listeners.follower(selection))
        self._subscriptions[request.id] = subscription
        subscription.task = tasks.create_task(self._deliver(subscription, start), name="subscription")

    async def _unsubscribe(self, name: str) -> None:
        subscription = self._subscriptions.pop(name, None)
        if subscription is None or subscription.task is None:
            raise MessageRefused(name, "there is no subscription with this id")
        subscription.task.cancel()
        await asyncio.wait({subscription.task})
        await self._send_json({"type": "unsubscribed", "id": name})

    async def _deliver(self, subscription: _Subscription, after: After) -> None:
        follower = subscription.follower
        try:
            await follower.begin(after)
        except (ViewUnavailable, TooBusy):
            raise InvalidRequest(
                status.WS_1013_TRY_AGAIN_LATER, "the view does not respond: connect again and resume"
            ) from None
        await self._send_json({"type": "subscribed", "id": subscription.name, "cursor": follower.position})
        subscription.sent = follower.position
        while not follower.stopped:
            found = await follower.next(self._keep_alive)
            if isinstance(found, Reset):
                horizon = {"horizon": found.horizon, "head": found.head, "cursor": follower.position}
                await self._send_json({"type": "reset", "id": subscription.name, **horizon})
            else:
                for entry in found:
                    await self._event(subscription, entry)
                    # The server may accept all messages without a pause. Yield, so that other tasks run and a lost
                    # connection is noticed.
                    await asyncio.sleep(0)
            subscription.sent = follower.position
        self._listeners.pages += follower.pages

    async def _event(self, subscription: _Subscription, entry: CommittedEvent) -> None:
        name = to_json(subscription.name)
        text = b'{"type":"event","id":%b,"cursor":%d,"event":%b}' % (name, entry.cursor, entry.delivered)
        await self._send(text.decode())
        subscription.sent = entry.cursor
        self._listeners.delivered["websocket"] += 1

    async def _keep_alives(self) -> None:
        while True:
            await asyncio.sleep(self._keep_alive)
            sent = [each.sent for each in self._subscriptions.values()]
            known = [cursor for cursor in sent if cursor is not None]
            # A subscription that has not started yet has no position: a client that resumed after it could miss
            # events.
            cursor = min(known) if known and len(known) == len(sent) else None
            await self._send_json({"type": "keep-alive", "cursor": cursor})

    async def _send_json(self, message: dict[str, Any]) -> None:
        await self._send(to_json(message).decode())

    async def _send(self, text: str) -> None:
        async with self._sending:
            await self._writer.send(text)
