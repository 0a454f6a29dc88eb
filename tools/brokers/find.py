"""Finds a RabbitMQ broker to run on, or starts one: the first of five ways that works.

    url     the one that RABBITMQ_URL names
    local   one on localhost:5672 that lets guest in
    docker  a container of this clone's own
    node    an installed rabbitmq-server, as a private node in the data folder
    apt     on Debian and Ubuntu as root: the package first, then as above (JOBTAPE_SETUP=never forbids it)

A way that doesn't work says why, in one line, and the next one is tried. JOBTAPE_BROKER=<way> allows that one only.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobtape.environment import trimmed
from jobtape.schemas.urls import without_password
from tools.brokers import apt
from tools.brokers.amqp import OLDEST, Server, UnreachableError, identity, probe, too_old
from tools.brokers.container import IMAGE, BrokerContainer
from tools.brokers.docker import DockerError, engine_answers, have_image
from tools.brokers.node import NodeError, PrivateNode
from tools.brokers.node_files import find_server

LOCAL_URL = "amqp://guest:guest@localhost:5672/"
WHAT_TO_DO = (
    "Do one of these and try again: set RABBITMQ_URL=amqp://user:password@host:5672/ to a broker that runs, "
    "start Docker, or install RabbitMQ 3.10 or later (package rabbitmq-server)."
)

Log = Callable[[str], None]


class BrokerError(Exception):
    """There is no broker: every way's reason, a line each, and what to do."""


class NotThisWayError(Exception):
    """Why one way doesn't work, in one line."""


@dataclass(frozen=True)
class Broker:
    """A broker that answered a moment ago."""

    url: str  # with the password
    kind: str  # the way it was found: url, local, docker, node (an apt install ends as node)
    description: str  # for people, without the password
    version: str  # like "3.10.8"
    identity: str  # short, fit for a folder's name, and another one for another broker: its view belongs there
    stop: Callable[[], None]  # ends what we started and keeps its data; nothing for somebody else's broker


def find_broker(data_dir: Path, log: Log, environment: Mapping[str, str] = os.environ) -> Broker:
    """The first broker of the ways above. `data_dir` gets the data of one that we start; `log` gets lines for people.

    Blocks for some seconds when it starts one, for minutes when an image or a package is fetched. Raises BrokerError.
    """
    ways: dict[str, Callable[[], Broker]] = {
        "url": lambda: _at_url(environment),
        "local": _local,
        "docker": lambda: _docker(data_dir, log),
        "node": lambda: _node(data_dir, log),
        "apt": lambda: _apt(data_dir, log),
    }
    only = environment.get("JOBTAPE_BROKER")
    if only is not None and only not in ways:
        raise BrokerError(f"JOBTAPE_BROKER={only} is unknown: use one of {', '.join(ways)}, or leave it out.")
    reasons: list[str] = []
    for name, way in ways.items():
        if only not in (None, name):
            continue
        try:
            found = way()
        except NotThisWayError as reason:
            log(f"Broker, by {name}: no, {reason}")
            reasons.append(f"  {name}: {reason}")
        else:
            log(f"Broker, by {name}: RabbitMQ {found.version}, {found.description}")
            return found
    raise BrokerError("\n".join(["No RabbitMQ broker was found and none could be started:", *reasons, WHAT_TO_DO]))


def install_server(log: Log) -> None:
    """Installs Debian's rabbitmq-server, whose own service stays off; raises NotThisWayError."""
    try:
        apt.install("rabbitmq-server", log, oldest=OLDEST)
    except apt.AptError as error:
        raise NotThisWayError(str(error)) from None


def _at_url(environment: Mapping[str, str]) -> Broker:
    url = trimmed(environment.get("RABBITMQ_URL", ""))
    if not url:
        raise NotThisWayError("RABBITMQ_URL is not set")
    return _somebody_elses("url", url)


def _local() -> Broker:
    return _somebody_elses("local", LOCAL_URL)


def _somebody_elses(kind: str, url: str) -> Broker:
    try:
        server = _usable(probe(url))
    except UnreachableError as error:
        raise NotThisWayError(str(error)) from None
    return Broker(url, kind, without_password(url), server.version, identity(url), lambda: None)


def _docker(data_dir: Path, log: Log) -> Broker:
    container = BrokerContainer(data_dir / "docker")
    try:
        engine_answers()
        log(f"Starting {IMAGE} as the container {container.name} (a first pull takes a minute) ...")
        have_image(IMAGE)
        server = container.start()
    except DockerError as error:
        raise NotThisWayError(str(error)) from None
    _usable(server, container.stop)
    description = f"container {container.name} at {without_password(container.url)}"
    return Broker(container.url, "docker", description, server.version, container.identity, container.stop)


def _node(data_dir: Path, log: Log) -> Broker:
    if find_server() is None:
        raise NotThisWayError("rabbitmq-server is not installed")
    node = PrivateNode(data_dir / "node" / "rabbitmq")
    log("Starting a private RabbitMQ node (some seconds) ...")
    try:
        node.start()
    except NodeError as error:
        raise NotThisWayError(str(error)) from None
    _usable(Server("RabbitMQ", node.version), node.stop)
    description = f"private node at {without_password(node.url)}"
    return Broker(node.url, "node", description, node.version, "node", node.stop)


def _apt(data_dir: Path, log: Log) -> Broker:
    if find_server() is not None:
        raise NotThisWayError("rabbitmq-server is installed already")
    install_server(log)
    return _node(data_dir, log)


def _usable(server: Server, stop: Callable[[], None] = lambda: None) -> Server:
    """The server, unless it is too old: then `stop` is called and NotThisWayError raised."""
    reason = too_old(server)
    if reason is not None:
        stop()
        raise NotThisWayError(reason)
    return server
