"""``jobtape destroy``: removes what ``jobtape init`` has created, and everything in it."""

import asyncio
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import connected
from jobtape.broker.management import ManagementApi, Unseen
from jobtape.cli import log_output as logs
from jobtape.cli.errors import OK, CannotStart, WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import job_types_of, opened_view, settings_with, topology_of
from jobtape.cli.printing import print_json
from jobtape.schemas.errors import JobtapeError, ViewUnavailable
from jobtape.schemas.topology import Topology
from jobtape.schemas.urls import without_password
from jobtape.settings import Settings
from jobtape.view.store import Store

ANSWER_TIMEOUT: Final = 20.0
"""Seconds for asking the broker for all queues."""


def run_destroy(*, view: bool, force: bool, yes: bool, as_json: bool, **options: str | None) -> int:
    """Remove the namespace on the broker, and with ``view`` the tables or the file of the view.

    Asks for confirmation unless ``yes``. Raises JobtapeError when something uses the queues, unless ``force``, and when
    broker or database do not answer.
    """
    settings = settings_with(**options)
    logs.configure("destroy", "error")
    if not yes and (as_json or not sys.stdin.isatty()):
        raise WrongUse("nobody can confirm here: give --yes to remove everything without a question")
    topology = topology_of(settings, job_types_of(settings) if settings.jobs else {})
    with opened_view(settings) as store:
        if view:
            _check_view(store)
        names, unseen = _queue_names(settings, topology, store)
        found = asyncio.run(_depths(settings.rabbitmq_url, names))
        _refuse_used(found, force)
        where = without_password(settings.rabbitmq_url)
        if not yes:
            _print_plan(found, topology, where, store.url_for_messages if view else None)
        if unseen:
            print(f"jobtape: queues that neither --jobs nor the view names stay: {one_line(unseen)}", file=sys.stderr)
        if not yes and input(f"Type {topology.namespace} to remove all this: ").strip() != topology.namespace:
            raise JobtapeError("nothing was removed: this is not the namespace")
        asyncio.run(declare.remove_namespace(settings.rabbitmq_url, topology, found))
        if not as_json:
            print(f"broker {where}: removed {len(found)} queues and the exchanges of {topology.namespace}")
        if view:
            store.destroy()
            if not as_json:
                print(f"view {store.url_for_messages}: removed")
        if as_json:
            queues = [{"name": name, "messages": found[name].messages} for name in sorted(found)]
            print_json(
                {"namespace": topology.namespace, "queues": queues, "view": store.url_for_messages if view else None}
            )
    return OK


def _check_view(store: Store) -> None:
    try:
        store.checkpoint()
    except ViewUnavailable as error:
        raise CannotStart(f"the view cannot be removed: {error}") from None


def _queue_names(settings: Settings, topology: Topology, store: Store) -> tuple[set[str], str | None]:
    """Return the names of all queues that may exist, and why the broker does not list them, if it does not."""
    names = {queue.name for queue in declare.all_queues(topology)}
    try:
        api = ManagementApi(settings.rabbitmq_url, settings.management_url)
        return names | {queue.name for queue in asyncio.run(api.namespace_queues(topology))}, None
    except Unseen as error:
        with suppress(JobtapeError):
            names |= {topology.work_queue(queue).name for queue in store.open_jobs.queues()}
        return names, str(error)


async def _depths(url: str, names: Collection[str]) -> dict[str, Depth]:
    """Return the depths of the queues that exist."""
    async with connected(url, ANSWER_TIMEOUT) as connection:
        depths = {name: await declare.depth(connection, name) for name in names}
    return {name: depth for name, depth in depths.items() if depth is not None}


def _refuse_used(found: Mapping[str, Depth], force: bool) -> None:
    used = sorted(name for name, depth in found.items() if depth.consumers)
    if used and not force:
        raise JobtapeError(
            f"workers, projectors or subscribers still use {', '.join(used)}: stop all parts first, or give --force"
        )


def _print_plan(found: Mapping[str, Depth], topology: Topology, where: str, view: str | None) -> None:
    print(f"This removes from the broker {where}:")
    for name in sorted(found):
        # A stream does not say how many messages it has.
        kept = "the tape" if name == topology.log.name else f"{found[name].messages} messages"
        print(f"  {name}: {kept}")
    print(f"  all exchanges of {topology.namespace}")
    print("The view stays." if view is None else f"It removes the view {view} with all jobs and their history.")
