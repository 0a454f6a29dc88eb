"""The health of a worker and of a projector over HTTP."""

import json
import signal
import socket

import pytest

from tests.cli.installation import Place, health
from tests.cli.programs import until
from tools.processes.ports import free_port


@pytest.mark.parametrize("part", ["worker", "projector"])
def test_ready_while_it_works(broker_place: Place, part: str) -> None:
    port = free_port()
    program = broker_place.start(part, JOBTAPE_HEALTH_PORT=str(port))
    until(lambda: health(f"http://127.0.0.1:{port}")[0] == 200, f"the {part} is ready")
    program.send(signal.SIGTERM)
    assert program.code() == 0
    assert health(f"http://127.0.0.1:{port}")[0] == 0


@pytest.mark.parametrize("part", ["worker", "projector"])
def test_not_ready_without_a_broker_and_why(place: Place, part: str) -> None:
    port = free_port()
    program = place.start(part, JOBTAPE_HEALTH_PORT=str(port))
    program.line_with("trying again until it answers")
    status, body = health(f"http://127.0.0.1:{port}")
    assert status == 503
    assert "no broker at amqp://guest@127.0.0.1:1/" in json.loads(body)["trouble"]


def test_a_port_that_is_taken(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.port)):
        done = place.run("worker", JOBTAPE_HEALTH_PORT=str(place.port))
    assert done.returncode == 2
    assert "choose another port with JOBTAPE_HEALTH_PORT" in done.stderr
