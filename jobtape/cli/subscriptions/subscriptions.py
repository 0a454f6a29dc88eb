"""``jobtape subscriptions list`` and ``remove``: positions in the view, and queues on the broker."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aio_pika

from jobtape.broker import declare
from jobtape.broker.connection_errors import describe_connection_error, reason_of
from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, CONNECT_TIMEOUT, Connection
from jobtape.cli import log_output as logs
from jobtape.cli import printing as show
from jobtape.cli.doctor.management import Unseen, bound_queues
from jobtape.cli.errors import WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import configuring, settings_with
from jobtape.consumer.subscriptions.position_lease import PREFIX
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.topology import Topology
from jobtape.schemas.urls import without_password
from jobtape.settings import Settings
from jobtape.subscribing import NAME
from jobtape.view.store import NamedPosition, Store

T = TypeVar("T")
OK, FAILED = 0, 1
ANSWER: Final = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """What stands for one name: a position (``since=``), a queue (live), or both."""

    name: str
    position: NamedPosition | None
    queue: Depth | None

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        position = self.position and {
            "cursor": self.position.cursor,
            "idle": round(self.position.idle.total_seconds(), 1),
            "owner": self.position.owner,
        }
        queue = self.queue and {"messages": self.queue.messages, "consumers": self.queue.consumers}
        return {"name": self.name, "position": position, "queue": queue}


def list_them(names: Sequence[str], *, as_json: bool) -> int:
    """Print those that have a position, those whose queues can be seen, and those of these names. Returns the exit
    code: 1 when database or broker did not answer.
    """
    settings = settings_with()
    logs.configure("subscriptions", "error")
    trouble: list[str] = []
    positions = _of_view(settings, lambda store: store.positions.all(), trouble) or []
    by_name = {each.name.removeprefix(PREFIX): each for each in positions if each.name.startswith(PREFIX)}
    seen, unseen = queues_seen(settings)
    wanted = sorted({*by_name, *seen, *(_checked(name) for name in names)})

    async def look(connection: Connection) -> list[Depth | None]:
        return [await declare.depth(connection, _queue(settings, name)) for name in wanted]

    depths = (asyncio.run(_of_broker(settings, look, trouble)) if wanted else None) or [None] * len(wanted)
    found = [Found(name, by_name.get(name), depth) for name, depth in zip(wanted, depths, strict=True)]
    if as_json:
        show.print_json({"items": [each.as_json() for each in found]})
    else:
        show.print_subscriptions([each.as_json() for each in found])
        if unseen and not names:
            print(f"queues are only shown of names that are given here: {one_line(unseen)}", file=sys.stderr)
    return _tell(trouble)


def remove(name: str) -> int:
    """Remove the queue with what waits on it, and the position. Returns the exit code: 1 when there was neither, or one
    of them could not be looked for.
    """
    settings = settings_with()
    logs.configure("subscriptions", "error")
    _checked(name)
    trouble: list[str] = []

    async def delete(connection: Connection) -> list[int | None]:
        return [await declare.delete_queue(connection, _queue(settings, name))]

    (waiting,) = asyncio.run(_of_broker(settings, delete, trouble)) or [None]
    if waiting is not None:
        print(f"queue {_queue(settings, name)}: removed, with {waiting} events that waited")
    forgotten = _of_view(settings, lambda store: store.positions.forget(PREFIX + name), trouble)
    if forgotten:
        print(f"position {name}: removed")
    if waiting is None and not forgotten and not trouble:
        raise JobtapeError(f"there is no subscription {name!r}, neither a queue nor a position")
    return _tell(trouble)


def _queue(settings: Settings, name: str) -> str:
    return Topology(settings.namespace).subscription_name(name)


def queues_seen(settings: Settings) -> tuple[list[str], str | None]:
    """The names that have a queue, or why that cannot be seen."""
    results, prefix = Topology(settings.namespace).results.name, _queue(settings, "")
    try:
        bound = bound_queues(settings, [results])
    except Unseen as error:
        return [], str(error)
    return [each.name.removeprefix(prefix) for each in bound[results] if each.name.startswith(prefix)], None


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise WrongUse(f"{name!r} is no name of a subscription")
    return name


def _of_view(settings: Settings, ask: Callable[[Store], T], trouble: list[str]) -> T | None:
    with configuring():
        store = Store(settings.database_url)
    try:
        return ask(store)
    except JobtapeError as error:
        trouble.append(str(error))
        return None
    finally:
        store.close()


async def _of_broker(
    settings: Settings, ask: Callable[[Connection], Awaitable[list[T]]], trouble: list[str]
) -> list[T] | None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await aio_pika.connect(settings.rabbitmq_url)
    except BROKER_ERRORS as error:
        trouble.append(f"the broker does not answer: {describe_connection_error(settings.rabbitmq_url, error)}")
        return None
    try:
        async with connection, asyncio.timeout(ANSWER):
            return await ask(connection)
    except BROKER_ERRORS as error:
        shown = without_password(settings.rabbitmq_url)
        trouble.append(f"the broker at {shown} does not answer: {reason_of(error)}")
        return None


def _tell(trouble: Sequence[str]) -> int:
    for each in trouble:
        print(f"jobtape: {one_line(each)}", file=sys.stderr)
    return FAILED if trouble else OK
