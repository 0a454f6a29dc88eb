"""Tests of ``make run``: the application's settings, its end, and the messages."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.programs import LIMIT
from tools import run as runner
from tools.brokers.find import Broker
from tools.clone import ROOT, clone_name
from tools.processes.locks import FolderLock
from tools.processes.ports import free_port
from tools.ready import NotReadyError, base_url, reason, wait_until_ready

# Instead of ``jobtape up``: answers on /health/ready, and exits with 7 on SIGTERM or SIGINT.
APPLICATION = textwrap.dedent(
    """
    import http.server, os, signal, sys

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(7))

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = os.environ.get("TEST_HEALTH", "")
            self.send_response(503 if body else 200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    print("started with", os.environ["RABBITMQ_URL"], os.environ["DATABASE_URL"], flush=True)
    http.server.HTTPServer((os.environ["JOBTAPE_HOST"], int(os.environ["JOBTAPE_PORT"])), Health).serve_forever()
    """
)
RUN = """
import os, pathlib, sys
from tools import run
run.READY_LIMIT = float(sys.argv[3])
sys.exit(run.run([sys.executable, "-c", sys.argv[1]], os.environ, pathlib.Path(sys.argv[2])))
"""


@contextmanager
def running(url: str, data: Path, limit: float = 30.0, **more: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "RABBITMQ_URL": url, "JOBTAPE_PORT": str(free_port()), **more}
    environment.pop("DATABASE_URL", None)
    command = [sys.executable, "-c", RUN, APPLICATION, str(data), str(limit)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_prints_what_to_do_and_passes_signal_and_exit_code_on(
    broker_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    with running(broker_url, tmp_path) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "curl" in line:
                break
        process.send_signal(number)
        assert process.wait(LIMIT) == 7
    assert "Jobtape is ready (Ctrl-C stops it)" in printed
    assert printed.rstrip().endswith(
        """-H 'content-type: application/json' -d '{"type":"add","payload":{"x":3,"y":4}}'"""
    )
    assert f"sqlite:///{tmp_path}/url-" in printed
    assert f"set -a; . {tmp_path}/env; set +a" in printed
    assert f"JOBTAPE_NAMESPACE={clone_name()}" in (tmp_path / "env").read_text().splitlines()


def test_second_run_in_a_clone_is_refused(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(runner.RunError, match=r"runs already, and runs once: another run .* stop it with Ctrl-C") as no:
        runner.run([], {}, tmp_path)
    assert "\n" not in str(no.value)
    lock.release()


def test_application_that_is_not_ready_is_reported_and_ended(broker_url: str, tmp_path: Path) -> None:
    parts = {"view": {"ready": True, "reason": None}, "broker": {"ready": False, "reason": "no connection"}}
    health = json.dumps({"ready": False, "parts": parts, "workers": {}})
    with running(broker_url, tmp_path, limit=3, TEST_HEALTH=health) as process:
        printed, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 7
    assert "The application is not ready after 3 s: broker: no connection" in printed


def test_taken_port_is_refused_with_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(runner.RunError, match=r"JOBTAPE_PORT=\d+ make run") as refusal:
            runner.address({"JOBTAPE_PORT": str(taken)})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("port", ["abc", "70000", "-1"])
def test_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(runner.RunError, match="is no port"):
        runner.address({"JOBTAPE_PORT": port})


def test_settings_of_the_user_win_and_each_namespace_has_a_view(tmp_path: Path) -> None:
    found = Broker("amqp://found/", "url", "", "4.0.5", "url-1", lambda: None)
    ours = runner.settings_for(found, "127.0.0.1", 8000, {"RABBITMQ_URL": "amqp://silent/"}, tmp_path)
    assert ours["RABBITMQ_URL"] == "amqp://found/"
    assert ours["JOBTAPE_NAMESPACE"] == clone_name()
    assert ours["JOBTAPE_JOBS"] == "examples.jobs"
    assert ours["DATABASE_URL"] == f"sqlite:///{tmp_path}/url-1/{clone_name()}/view.db"
    given = {"JOBTAPE_NAMESPACE": "mine", "JOBTAPE_JOBS": "my.jobs"}
    theirs = runner.settings_for(found, "127.0.0.1", 8000, given, tmp_path)
    assert theirs["DATABASE_URL"] == f"sqlite:///{tmp_path}/url-1/mine/view.db"
    assert (theirs["JOBTAPE_NAMESPACE"], theirs["JOBTAPE_JOBS"]) == ("mine", "my.jobs")


def test_wait_ends_when_the_application_has_ended() -> None:
    with pytest.raises(NotReadyError, match="ended before it was ready"):
        wait_until_ready(f"http://127.0.0.1:{free_port()}", None, lambda: False, 60.0)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")],
)
def test_base_url_can_be_opened(host: str, url: str) -> None:
    assert base_url(host, 1) == url


def test_welcome_names_dashboard_and_api() -> None:
    assert "http://127.0.0.1:8000/\n  API: http://127.0.0.1:8000/docs" in runner.welcome(
        "http://127.0.0.1:8000", ".jobtape/env", with_key=False
    )


def test_welcome_contains_the_variable_of_the_key_not_its_value() -> None:
    assert '-H "authorization: Bearer $JOBTAPE_API_KEY"' in runner.welcome(
        "http://127.0.0.1:8000", ".jobtape/env", with_key=True
    )


@pytest.mark.parametrize(("body", "text"), [("", "it does not say why"), ("not json\n", "not json"), ("[]", "[]")])
def test_health_body_without_parts_is_shown(body: str, text: str) -> None:
    assert reason(body) == text
