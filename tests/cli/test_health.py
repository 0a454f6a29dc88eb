"""Tests the health of a worker and of a projector over HTTP."""

import json
import signal
import socket

import pytest

from tests.cli.installation import Installation, health
from tests.cli.programs import until
from tools.processes.ports import free_port


@pytest.mark.parametrize("part", ["worker", "projector"])
def test_part_is_ready_while_it_works(broker_installation: Installation, part: str) -> None:
    port = free_port()
    # As in Kubernetes, whose probes come from another host: no key is needed.
    program = broker_installation.start(part, JOBTAPE_HEALTH_PORT=str(port), JOBTAPE_HOST="0.0.0.0")
    until(lambda: health(f"http://127.0.0.1:{port}")[0] == 200, f"the {part} is ready")
    program.send(signal.SIGTERM)
    assert program.code() == 0
    assert health(f"http://127.0.0.1:{port}")[0] == 0


@pytest.mark.parametrize("part", ["worker", "projector"])
def test_part_without_broker_is_not_ready(installation: Installation, part: str) -> None:
    port = free_port()
    program = installation.start(part, JOBTAPE_HEALTH_PORT=str(port))
    program.line_with("trying again until it answers")
    status, body = health(f"http://127.0.0.1:{port}")
    assert status == 503
    assert "no broker at amqp://guest@127.0.0.1:1/" in json.loads(body)["reason"]


def test_health_port_that_is_taken_is_refused(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", installation.port)):
        done = installation.run("worker", JOBTAPE_HEALTH_PORT=str(installation.port))
    assert done.returncode == 2
    assert "choose another port with JOBTAPE_HEALTH_PORT" in done.stderr
