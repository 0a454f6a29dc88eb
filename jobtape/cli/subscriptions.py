"""``jobtape subscriptions list`` and ``remove``: positions in the view, and queues on the broker."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import connected
from jobtape.broker.management import ManagementApi, Unseen
from jobtape.cli import log_output as logs
from jobtape.cli import printing as show
from jobtape.cli.errors import FAILED, OK, WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import opened_view, settings_with
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.subscribing import NAME
from jobtape.view.store import NamedPosition
from jobtape.view.subscribers.positions import SUBSCRIPTION

ANSWER_TIMEOUT: Final = 10.0
"""Seconds that the broker may take to answer."""


def list_all(names: Sequence[str], *, as_json: bool) -> int:
    """Print the subscriptions with a position, those whose queue the broker shows, and those in ``names``.

    Returns the exit code: FAILED when database or broker did not answer.
    """
    settings = settings_with()
    logs.configure("subscriptions", "error")
    errors: list[str] = []
    positions: Sequence[NamedPosition] = ()
    with opened_view(settings) as store, _noting(errors):
        positions = store.positions.all()
    by_name = {each.name.removeprefix(SUBSCRIPTION): each for each in positions if each.name.startswith(SUBSCRIPTION)}
    visible, unseen = visible_queues(settings)
    wanted = sorted({*by_name, *visible, *(_checked(name) for name in names)})

    async def read_depths() -> dict[str, Depth | None]:
        async with connected(settings.rabbitmq_url, ANSWER_TIMEOUT) as connection:
            return {name: await declare.depth(connection, _queue(settings, name)) for name in wanted}

    depths: dict[str, Depth | None] = {}
    if wanted:
        with _noting(errors):
            depths = asyncio.run(read_depths())
    items = [_item(name, by_name.get(name), depths.get(name)) for name in wanted]
    if as_json:
        show.print_json({"items": items})
    else:
        show.print_subscriptions(items)
        if unseen and not names:
            print(f"queues are shown only for names that are given: {one_line(unseen)}", file=sys.stderr)
    return _print_errors(errors)


def remove(name: str, *, as_json: bool) -> int:
    """Remove the queue with the events that wait on it, and the position.

    Returns the exit code: FAILED when database or broker did not answer. Raises JobtapeError when there is neither.
    """
    settings = settings_with()
    logs.configure("subscriptions", "error")
    _checked(name)
    errors: list[str] = []

    async def delete() -> int | None:
        async with connected(settings.rabbitmq_url, ANSWER_TIMEOUT) as connection:
            return await declare.delete_queue(connection, _queue(settings, name))

    waiting, removed = None, False
    with _noting(errors):
        waiting = asyncio.run(delete())
    if waiting is not None and not as_json:
        print(f"queue {_queue(settings, name)}: removed, with {waiting} events that waited")
    with opened_view(settings) as store, _noting(errors):
        removed = store.positions.forget(SUBSCRIPTION + name)
    if removed and not as_json:
        print(f"position {name}: removed")
    if waiting is None and not removed and not errors:
        raise JobtapeError(f"there is no subscription {name!r}, neither a queue nor a position")
    if as_json:
        queue = None if waiting is None else {"messages": waiting}
        show.print_json({"name": name, "position_removed": removed, "queue_removed": queue})
    return _print_errors(errors)


def visible_queues(settings: Settings) -> tuple[list[str], str | None]:
    """Return the names of the subscriptions that have a queue, or why the broker does not show them."""
    topology = Topology(settings.namespace)
    try:
        api = ManagementApi(settings.rabbitmq_url, settings.management_url)
        queues = asyncio.run(api.subscriber_queues(topology))
    except Unseen as error:
        return [], str(error)
    return [name for each in queues if (name := topology.subscription_of(each.name)) is not None], None


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


@contextmanager
def _noting(errors: list[str]) -> Iterator[None]:
    """Add the text of a JobtapeError to ``errors``, and continue after the block."""
    try:
        yield
    except JobtapeError as error:
        errors.append(str(error))


def _print_errors(errors: Sequence[str]) -> int:
    for each in errors:
        print(f"jobtape: {one_line(each)}", file=sys.stderr)
    return FAILED if errors else OK
