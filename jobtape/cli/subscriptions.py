"""``jobtape subscriptions list`` and ``remove``: positions in the view, and queues on the broker."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import aio_pika

from jobtape.broker import declare
from jobtape.broker.connection_errors import describe_connection_error, reason_of
from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, CONNECT_TIMEOUT, Connection
from jobtape.cli import log_output as logs
from jobtape.cli import printing as show
from jobtape.cli.doctor.management import Unseen, bound_queues
from jobtape.cli.errors import FAILED, OK, WrongUse
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
ANSWER_LIMIT: Final = 10.0
"""Seconds that the broker may take to answer."""


def list_all(names: Sequence[str], *, as_json: bool) -> int:
    """Print the subscriptions with a position, those whose queue the broker shows, and those in ``names``.

    Returns the exit code: FAILED when database or broker did not answer.
    """
    settings = settings_with()
    logs.configure("subscriptions", "error")
    errors: list[str] = []
    positions = _ask_view(settings, lambda store: store.positions.all(), errors) or []
    by_name = {each.name.removeprefix(PREFIX): each for each in positions if each.name.startswith(PREFIX)}
    visible, unseen = visible_queues(settings)
    wanted = sorted({*by_name, *visible, *(_checked(name) for name in names)})

    async def read_depths(connection: Connection) -> list[Depth | None]:
        return [await declare.depth(connection, _queue(settings, name)) for name in wanted]

    depths = (asyncio.run(_ask_broker(settings, read_depths, errors)) if wanted else None) or [None] * len(wanted)
    items = [_item(name, by_name.get(name), depth) for name, depth in zip(wanted, depths, strict=True)]
    if as_json:
        show.print_json({"items": items})
    else:
        show.print_subscriptions(items)
        if unseen and not names:
            print(f"queues are shown only for names that are given: {one_line(unseen)}", file=sys.stderr)
    return _print_errors(errors)


def remove(name: str) -> int:
    """Remove the queue with the events that wait on it, and the position.

    Returns the exit code: FAILED when database or broker did not answer. Raises JobtapeError when there is neither.
    """
    settings = settings_with()
    logs.configure("subscriptions", "error")
    _checked(name)
    errors: list[str] = []

    async def delete(connection: Connection) -> list[int | None]:
        return [await declare.delete_queue(connection, _queue(settings, name))]

    (waiting,) = asyncio.run(_ask_broker(settings, delete, errors)) or [None]
    if waiting is not None:
        print(f"queue {_queue(settings, name)}: removed, with {waiting} events that waited")
    removed = _ask_view(settings, lambda store: store.positions.forget(PREFIX + name), errors)
    if removed:
        print(f"position {name}: removed")
    if waiting is None and not removed and not errors:
        raise JobtapeError(f"there is no subscription {name!r}, neither a queue nor a position")
    return _print_errors(errors)


def visible_queues(settings: Settings) -> tuple[list[str], str | None]:
    """Return the names of the subscriptions that have a queue, or why the broker does not show them."""
    results, prefix = Topology(settings.namespace).results.name, _queue(settings, "")
    try:
        bound = bound_queues(settings, [results])
    except Unseen as error:
        return [], str(error)
    return [each.name.removeprefix(prefix) for each in bound[results] if each.name.startswith(prefix)], None


def _item(name: str, position: NamedPosition | None, queue: Depth | None) -> dict[str, Any]:
    return {
        "name": name,
        "position": position
        and {
            "cursor": position.cursor,
            "idle": round(position.idle.total_seconds(), 1),
            "owner": position.owner,
        },
        "queue": queue and {"messages": queue.messages, "consumers": queue.consumers},
    }


def _queue(settings: Settings, name: str) -> str:
    return Topology(settings.namespace).subscription_name(name)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise WrongUse(f"{name!r} cannot be the name of a subscription")
    return name


def _ask_view(settings: Settings, ask: Callable[[Store], T], errors: list[str]) -> T | None:
    with configuring():
        store = Store(settings.database_url)
    try:
        return ask(store)
    except JobtapeError as error:
        errors.append(str(error))
        return None
    finally:
        store.close()


async def _ask_broker(
    settings: Settings, ask: Callable[[Connection], Awaitable[list[T]]], errors: list[str]
) -> list[T] | None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await aio_pika.connect(settings.rabbitmq_url)
    except BROKER_ERRORS as error:
        errors.append(f"the broker does not answer: {describe_connection_error(settings.rabbitmq_url, error)}")
        return None
    try:
        async with connection, asyncio.timeout(ANSWER_LIMIT):
            return await ask(connection)
    except BROKER_ERRORS as error:
        shown = without_password(settings.rabbitmq_url)
        errors.append(f"the broker at {shown} does not answer: {reason_of(error)}")
        return None


def _print_errors(errors: Sequence[str]) -> int:
    for each in errors:
        print(f"jobtape: {one_line(each)}", file=sys.stderr)
    return FAILED if errors else OK
