"""One RabbitMQ for a whole test session: a container where Docker can give one, otherwise a private node.

Wiring, in conftest.py:

    @pytest.fixture(scope="session")
    def broker() -> Iterator[SessionBroker]:
        broker = start_session_broker()
        yield broker
        broker.stop()

or, to name it in the header, start it in `pytest_configure`, return `broker.description` from `pytest_report_header`
and stop it in `pytest_unconfigure`. A missing broker skips nothing: it is an error that says what to do.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testcontainers.community.rabbitmq import RabbitMqContainer

from jobtape.schemas.urls import without_password
from tests.containers import NoContainersError, engine_with
from tools.brokers import apt
from tools.brokers.amqp import UnreachableError, probe, too_old
from tools.brokers.container import ARGUMENTS, IMAGE
from tools.brokers.find import NotThisWayError, install_server
from tools.brokers.node import NodeError, PrivateNode
from tools.brokers.node_files import find_server

WHAT_TO_DO = (
    "start Docker, install rabbitmq-server 3.10 or later, or set JOBTAPE_TEST_BROKER=url and RABBITMQ_URL "
    "to a broker that the tests may use"
)


class NoTestBrokerError(Exception):
    """There is no broker for the tests; the text has the reasons and what to do."""


@dataclass(frozen=True)
class SessionBroker:
    """A broker for the tests. `description` names its kind and version, without a password."""

    url: str
    description: str
    stop: Callable[[], None]


def start_session_broker() -> SessionBroker:
    """A fresh container or node, or with JOBTAPE_TEST_BROKER=docker|node|url that one only (url: RABBITMQ_URL).

    Takes some seconds. Call `stop()` at the end. Raises NoTestBrokerError.
    """
    ways = {"docker": _container, "node": _node, "url": _at_url}
    only = os.environ.get("JOBTAPE_TEST_BROKER")
    if only is not None and only not in ways:
        raise NoTestBrokerError(f"JOBTAPE_TEST_BROKER={only} is unknown: use docker, node or url")
    reasons: list[str] = []
    for name in [only] if only else ["docker", "node"]:
        try:
            return ways[name]()
        except (NoContainersError, NodeError, NotThisWayError, UnreachableError) as error:
            reasons.append(f"{name}: {error}")
    raise NoTestBrokerError(f"no RabbitMQ for the tests ({'; '.join(reasons)}): {WHAT_TO_DO}")


def see_to_a_server() -> None:
    """Installs RabbitMQ where there is none, for a private node. Raises NotThisWayError."""
    apt.wait_for_others()
    if find_server() is None:
        install_server(lambda line: print(line, flush=True))


def _container() -> SessionBroker:
    engine_with(IMAGE)
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
    see_to_a_server()
    folder = Path(tempfile.mkdtemp(prefix="jobtape-test-broker-"))
    node = PrivateNode(folder)

    def stop() -> None:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        node.start()
    except NodeError:
        # The folder stays: its log says why, and the error names it.
        node.stop()
        raise
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
