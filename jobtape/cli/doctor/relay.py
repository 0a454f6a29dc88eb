"""Checks the relay, and the queues that others have bound to our exchanges."""

import asyncio
from typing import Final

from jobtape.broker.management import HINT, ManagementApi, SeenQueue, Unseen
from jobtape.cli.doctor.findings import Findings, first_of
from jobtape.producer.monitoring.health import relay_fault
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store

SHOWN: Final = 10


def examine_relay(found: Findings, settings: Settings, topology: Topology, store: Store) -> None:
    """Add findings about the relay. Blocks."""
    _examine_state(found, settings, store)
    results, events = topology.results.name, topology.events.name
    try:
        api = ManagementApi(settings.rabbitmq_url, settings.management_url)
        bound = asyncio.run(api.bound_queues((results, events)))
    except Unseen as error:
        what = f"it is not known which queues are bound to {results} and {events}: {error}"
        found.note("broker", what, f"{HINT}`rabbitmqctl list_bindings`")
        return
    _examine_results(found, results, [each for each in bound[results] if not topology.is_ours(each.name)])
    _examine_events(found, events, [each.name for each in bound[events] if not topology.is_ours(each.name)])


def _examine_state(found: Findings, settings: Settings, store: Store) -> None:
    try:
        state = store.relay.state()
    except ViewUnavailable:
        return  # the check of the view reports why
    if state is None:
        why = "JOBTAPE_RELAY_EVENTS is off" if settings.relay_events == "off" else "no projector has started it yet"
        found.note("view", f"subscribers of {settings.namespace}.results receive nothing: {why}")
        return
    if fault := relay_fault(state):
        found.wrong(
            "broker",
            fault,
            "find the queue without a majority (`rabbitmq-queues check_if_node_is_quorum_critical`, `rabbitmqctl "
            "list_queues name type state`), repair or delete it; jobs, live HTTP and catch-up are not affected",
        )
    else:
        found.fine("view", f"subscribers have received {state.delivered} events and are {state.behind:.1f} s behind")
    if state.refused:
        found.note(
            "broker",
            f"{state.refused} events were refused by full queues that are bound to {settings.namespace}.results",
            "their consumers are too slow: read faster, or drop the oldest messages (x-overflow: drop-head)",
        )


def _examine_results(found: Findings, exchange: str, foreign: list[SeenQueue]) -> None:
    unlimited = [queue.name for queue in foreign if not queue.bounded]
    if unlimited:
        found.note(
            "broker",
            f"{len(unlimited)} queues that others have bound to {exchange} have no length limit: "
            f"{first_of(unlimited, SHOWN)}. One that nobody reads fills the broker's disk, and then an alarm stops "
            "all publishers",
            "limit them by a policy: rabbitmqctl set_policy NAME PATTERN '{\"max-length\": 100000}' --apply-to queues",
        )
    else:
        found.fine("broker", f"{len(foreign)} queues that others have bound to {exchange}, each with a length limit")


def _examine_events(found: Findings, exchange: str, foreign: list[str]) -> None:
    if foreign:
        found.wrong(
            "broker",
            f"others have bound queues to {exchange}, which is internal: {first_of(foreign, SHOWN)}. "
            "One that refuses a message makes the API answer 503",
            "bind them to the results instead: see docs/how-to/result-queues.md",
        )
