"""One RabbitMQ for a whole test session: a container where Docker can start one, or else a private node.

A missing broker is an error that says what to do, and skips nothing.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testcontainers.community.rabbitmq import RabbitMqContainer

from jobtape.schemas.urls import without_password
from tests.containers import NoContainersError, check_engine
from tests.packages import ensure_installed
from tools.brokers.amqp import UnreachableError, probe, too_old
from tools.brokers.apt import AptError
from tools.brokers.container import ARGUMENTS, IMAGE
from tools.brokers.find import PACKAGE
from tools.brokers.node import NodeError, PrivateNode
from tools.brokers.node_files import find_server

WHAT_TO_DO = (
    "start Docker, install rabbitmq-server 3.10 or later, or set JOBTAPE_TEST_BROKER=url and RABBITMQ_URL "
    "to a broker that the tests may use"
)


class NoTestBrokerError(Exception):
    """There is no broker for the tests. The text has the reasons and what to do."""


@dataclass(frozen=True)
class SessionBroker:
    """A broker for the tests. ``description`` names its kind and version, without a password."""

    url: str
    description: str
    stop: Callable[[], None]


def start_session_broker() -> SessionBroker:
    """Start a container or a node, or only what JOBTAPE_TEST_BROKER names: docker, node, or url (RABBITMQ_URL).

    Takes some seconds. Call ``stop()`` at the end. Raises NoTestBrokerError.
    """
    ways = {"docker": _container, "node": _node, "url": _at_url}
    only = os.environ.get("JOBTAPE_TEST_BROKER")
    if only is not None and only not in ways:
        raise NoTestBrokerError(f"JOBTAPE_TEST_BROKER={only} is unknown: use docker, node or url")
    reasons: list[str] = []
    for name in [only] if only else ["docker", "node"]:
        try:
            return ways[name]()
        except (NoContainersError, NodeError, AptError, UnreachableError) as error:
            reasons.append(f"{name}: {error}")
    raise NoTestBrokerError(f"no RabbitMQ for the tests ({'; '.join(reasons)}): {WHAT_TO_DO}")


def ensure_server() -> None:
    """Install RabbitMQ for a private node, unless it is there. Raises AptError."""
    ensure_installed(find_server, PACKAGE)


def _container() -> SessionBroker:
    check_engine(IMAGE)
    container = RabbitMqContainer(IMAGE)
    container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ARGUMENTS)
    container.start()
    host, port = container.get_container_host_ip(), container.get_exposed_port(container.port)
    url = f"amqp://{container.username}:{container.password}@{host}:{port}/"
    try:
        version = probe(url, timeout=30.0).version
    except UnreachableError:
        container.stop()
        raise
    return SessionBroker(url, f"RabbitMQ {version} in a container ({IMAGE})", container.stop)


def _node() -> SessionBroker:
    ensure_server()
    folder = Path(tempfile.mkdtemp(prefix="jobtape-test-broker-"))
    node = PrivateNode(folder)

    def stop() -> None:
        node.kill()  # faster than a graceful end, and the data are removed
        shutil.rmtree(folder, ignore_errors=True)

    # If it fails, the folder stays: the error names the log in it.
    node.start()
    return SessionBroker(node.url, f"RabbitMQ {node.version}, a private node", stop)


def _at_url() -> SessionBroker:
    url = os.environ.get("RABBITMQ_URL")
    if not url:
        raise UnreachableError("JOBTAPE_TEST_BROKER=url needs RABBITMQ_URL as well")
    server = probe(url)
    reason = too_old(server)
    if reason:
        raise UnreachableError(reason)
    return SessionBroker(url, f"RabbitMQ {server.version} at {without_password(url)}", lambda: None)
