"""Find a RabbitMQ broker, or start one. The first of these ways that works is taken:

    url     the broker at RABBITMQ_URL
    local   a broker on localhost:5672 that accepts guest
    docker  a container of this clone
    node    an installed rabbitmq-server, as a private node in the data folder
    apt     on Debian and Ubuntu as root: install the package, then as above (JOBTAPE_SETUP=never forbids it)

A way that does not work says why in one line, and the next one is tried. JOBTAPE_BROKER=<way> allows only that one.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobtape.environment import trimmed
from jobtape.schemas.urls import without_password
from tools.brokers import apt
from tools.brokers.amqp import Server, UnreachableError, identity, probe, too_old
from tools.brokers.container import IMAGE, BrokerContainer
from tools.brokers.docker import INFO_LIMIT, DockerError, docker, ensure_image
from tools.brokers.node import NodeError, PrivateNode
from tools.brokers.node_files import find_server

LOCAL_URL = "amqp://guest:guest@localhost:5672/"
PACKAGE = "rabbitmq-server"
WHAT_TO_DO = (
    "Do one of these and try again: set RABBITMQ_URL=amqp://user:password@host:5672/ to a running broker, "
    "start Docker, or install RabbitMQ 3.10 or later (package rabbitmq-server)."
)

Log = Callable[[str], None]


class BrokerError(Exception):
    """There is no broker. The text has the reason of each way, one in a line, and what to do."""


class NotThisWayError(Exception):
    """Why one way does not work, in one line."""


@dataclass(frozen=True)
class Broker:
    """A broker that has just answered."""

    url: str  # with the password
    kind: str  # the way it was found: url, local, docker or node (also after apt)
    description: str  # for people, without the password
    version: str  # like "3.10.8"
    identity: str  # short and fit for a folder's name; every broker has another one, and a view of its own
    stop: Callable[[], None]  # ends a broker that we started and keeps its data; does nothing for others
    revive: Callable[[], bool] = lambda: False
    """Starts a private node again that has ended. Returns whether it had ended. Raises NodeError."""


def find_broker(data_dir: Path, log: Log, environment: Mapping[str, str] = os.environ) -> Broker:
    """Return the first broker of the ways above. ``data_dir`` gets the data of one that we start.

    ``log`` gets lines for people. Blocks for seconds, or for minutes if it downloads an image or a package. Raises
    BrokerError.
    """
    ways: dict[str, Callable[[], Broker]] = {
        "url": lambda: _at_url(environment),
        "local": lambda: _not_ours("local", LOCAL_URL),
        "docker": lambda: _docker(data_dir, log),
        "node": lambda: _node(data_dir, log),
        "apt": lambda: _apt(data_dir, log),
    }
    only = environment.get("JOBTAPE_BROKER")
    if only is not None and only not in ways:
        raise BrokerError(f"JOBTAPE_BROKER={only} is unknown: use one of {', '.join(ways)}, or leave it out.")
    reasons: list[str] = []
    for name in ways if only is None else [only]:
        try:
            found = ways[name]()
        except (NotThisWayError, UnreachableError, DockerError, NodeError, apt.AptError) as reason:
            log(f"Broker, by {name}: no, {reason}")
            reasons.append(f"  {name}: {reason}")
        else:
            log(f"Broker, by {name}: RabbitMQ {found.version}, {found.description}")
            return found
    raise BrokerError("\n".join(["No RabbitMQ broker was found and none could be started:", *reasons, WHAT_TO_DO]))


def _at_url(environment: Mapping[str, str]) -> Broker:
    url = trimmed(environment.get("RABBITMQ_URL", ""))
    if not url:
        raise NotThisWayError("RABBITMQ_URL is not set")
    return _not_ours("url", url)


def _not_ours(kind: str, url: str) -> Broker:
    version = _usable(probe(url), stop=lambda: None)
    return Broker(url, kind, without_password(url), version, identity(url), lambda: None)


def _docker(data_dir: Path, log: Log) -> Broker:
    container = BrokerContainer(data_dir / "docker")
    docker("info", "--format", "{{.ServerVersion}}", timeout=INFO_LIMIT)
    log(f"Starting {IMAGE} as the container {container.name} (a first pull takes a minute) ...")
    ensure_image(IMAGE)
    version = _usable(container.start(), container.stop)
    description = f"container {container.name} at {without_password(container.url)}"
    return Broker(container.url, "docker", description, version, container.identity, container.stop)


def _node(data_dir: Path, log: Log) -> Broker:
    if find_server() is None:
        raise NotThisWayError("rabbitmq-server is not installed")
    node = PrivateNode(data_dir / "node" / "rabbitmq")
    log("Starting a private RabbitMQ node (some seconds) ...")
    node.start()
    version = _usable(Server("RabbitMQ", node.version), node.stop)
    description = f"private node at {without_password(node.url)}"
    return Broker(node.url, "node", description, version, "node", node.stop, node.revive)


def _apt(data_dir: Path, log: Log) -> Broker:
    if find_server() is not None:
        raise NotThisWayError("rabbitmq-server is installed already")
    apt.install(PACKAGE, log)
    return _node(data_dir, log)


def _usable(server: Server, stop: Callable[[], None]) -> str:
    """Return the server's version. If it is too old, call ``stop`` and raise NotThisWayError."""
    reason = too_old(server)
    if reason is not None:
        stop()
        raise NotThisWayError(reason)
    return server.version
