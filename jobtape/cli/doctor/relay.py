"""Checks the relay, and the queues that others have bound to our exchanges."""

from typing import Final

from jobtape.cli.doctor.administration import Unseen
from jobtape.cli.doctor.bound_queues import BoundQueue, bound_queues
from jobtape.cli.doctor.findings import Findings
from jobtape.producer.monitoring.health import relay_trouble
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store

SHOWN: Final = 10
LOOK: Final = (
    "name the management API with JOBTAPE_MANAGEMENT_URL, or a command for rabbitmqctl with JOBTAPE_RABBITMQCTL; or "
    "look at `rabbitmqctl list_bindings` yourself"
)


def examine_relay(found: Findings, settings: Settings, topology: Topology, store: Store) -> None:
    """Add findings about the relay. Blocks."""
    _examine_state(found, settings, store)
    results, events = topology.results.name, topology.events.name
    try:
        bound = bound_queues(settings.rabbitmq_url, settings.management_url, settings.rabbitmqctl, (results, events))
    except Unseen as error:
        found.note("broker", f"which queues are bound to {results} and {events} cannot be seen: {error}", LOOK)
        return
    _examine_results(found, results, [each for each in bound[results] if not topology.is_ours(each.name)])
    _examine_events(found, events, [each for each in bound[events] if not topology.is_ours(each.name)])


def _examine_state(found: Findings, settings: Settings, store: Store) -> None:
    try:
        state = store.relay.state()
    except ViewUnavailable:
        return  # the check of the view reports why
    if state is None:
        why = "JOBTAPE_RELAY_EVENTS is off" if settings.relay_events == "off" else "no projector has started it yet"
        found.note("view", f"subscribers of {settings.namespace}.results receive nothing: {why}")
    elif trouble := relay_trouble(state):
        found.wrong(
            "broker",
            trouble,
            "look for a queue without a majority (`rabbitmq-queues check_if_node_is_quorum_critical`, `rabbitmqctl "
            "list_queues name type state`), repair or delete it; jobs, live HTTP and catch-up are not affected",
        )
    else:
        found.fine("view", f"subscribers have received {state.delivered} events and are {state.behind:.1f} s behind")
    if state is not None and state.refused:
        found.note(
            "broker",
            f"{state.refused} events were refused by full queues that are bound to {settings.namespace}.results",
            "their readers are too slow: read faster, or drop the oldest messages (x-overflow: drop-head)",
        )


def _examine_results(found: Findings, exchange: str, foreign: list[BoundQueue]) -> None:
    boundless = [queue.name for queue in foreign if not queue.bounded]
    if boundless:
        found.note(
            "broker",
            f"{len(boundless)} queues that others have bound to {exchange} have no length limit: {_names(boundless)}. "
            "One that nobody reads fills the broker's disk, and an alarm then stops everybody",
            "bound them by a policy: rabbitmqctl set_policy NAME PATTERN '{\"max-length\": 100000}' --apply-to queues",
        )
    else:
        found.fine("broker", f"{len(foreign)} queues that others have bound to {exchange}, each with a length limit")


def _examine_events(found: Findings, exchange: str, foreign: list[BoundQueue]) -> None:
    if foreign:
        found.wrong(
            "broker",
            f"others have bound queues to {exchange}, which is internal: {_names([queue.name for queue in foreign])}. "
            "One that refuses a message makes the API answer 503",
            "bind them to the results instead: see docs/how-to/subscribe.md",
        )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
