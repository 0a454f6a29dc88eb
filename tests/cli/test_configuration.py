"""Tests wrong configurations: one line names the fault and what to do, and the exit code is 2."""

import signal
import socket

import pytest

from tests.cli.installation import Installation

SERVERS = ("up", "api", "worker")


def only_line(text: str) -> str:
    """Return the only line that is not the supervisor's. Fails if there are more."""
    lines = [line for line in text.splitlines() if not line.startswith("jobtape   |")]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("command", [*SERVERS, "projector", "init"])
def test_wrong_setting_is_named(installation: Installation, command: str) -> None:
    done = installation.run(command, JOBTAPE_PORT="many")
    assert done.returncode == 2
    assert "JOBTAPE_PORT: Input should be a valid integer" in only_line(done.stderr)


def test_malformed_broker_url_shows_no_password(installation: Installation) -> None:
    done = installation.run("worker", RABBITMQ_URL="http://guest:secret@localhost/")
    assert done.returncode == 2
    line = only_line(done.stderr)
    assert "RABBITMQ_URL: Value error, write it as amqp://" in line
    assert "secret" not in line


@pytest.mark.parametrize("command", SERVERS)
@pytest.mark.parametrize(
    ("jobs", "remedy"),
    [("", "say which to load with --jobs"), ("no.such.module", "check --jobs / JOBTAPE_JOBS, and --app-dir")],
)
def test_missing_job_modules_are_named(installation: Installation, command: str, jobs: str, remedy: str) -> None:
    done = installation.run(command, JOBTAPE_JOBS=jobs)
    assert done.returncode == 2
    assert remedy in only_line(done.stderr)


@pytest.mark.parametrize("command", ["api", "worker"])
def test_timeout_above_broker_limit_is_refused(installation: Installation, command: str) -> None:
    done = installation.run(command, JOBTAPE_ACK_TIMEOUT="100")
    assert done.returncode == 2
    line = only_line(done.stderr)
    assert "may run 600 s" in line
    assert "shorten its timeout, or raise consumer_timeout" in line


@pytest.mark.parametrize("command", SERVERS)
def test_broken_module_shows_only_its_own_traceback(installation: Installation, command: str) -> None:
    (installation.folder / "jobs_here.py").write_text("from helper import price\n")
    (installation.folder / "helper.py").write_text("price = 1 / 0\n")
    done = installation.run(command)
    assert done.returncode == 2
    assert done.stderr.count("ZeroDivisionError: division by zero") == 1
    assert done.stderr.count('helper.py", line 1, in <module>') == 1
    assert "jobtape/loading.py" not in done.stderr
    assert "importlib" not in done.stderr


def test_module_that_ends_the_process_is_refused(installation: Installation) -> None:
    (installation.folder / "jobs_here.py").write_text("raise SystemExit(0)\n")
    done = installation.run("worker")
    assert done.returncode == 2
    assert "ended the process on import" in only_line(done.stderr)


@pytest.mark.parametrize("command", ["up", "api"])
def test_port_that_is_taken_is_refused(installation: Installation, command: str) -> None:
    with socket.create_server(("127.0.0.1", installation.port)):
        done = installation.run(command)
    assert done.returncode == 2
    line = next(line for line in done.stderr.splitlines() if "cannot listen" in line)
    assert f"127.0.0.1:{installation.port}" in line
    assert "choose another port with --port / JOBTAPE_PORT" in line
    if command == "up":
        assert done.stderr.splitlines()[-1] == "jobtape   | stopped"


@pytest.mark.parametrize("command", ["up", "api"])
def test_api_without_key_listens_only_on_loopback(installation: Installation, command: str) -> None:
    done = installation.run(command, JOBTAPE_HOST="0.0.0.0")
    assert done.returncode == 2
    assert any("set JOBTAPE_API_KEY" in line for line in done.stderr.splitlines())


def test_option_overrides_environment(installation: Installation) -> None:
    done = installation.run("worker", "--jobs", "no.such.module")
    assert "no module no.such.module" in only_line(done.stderr)


def test_malformed_queue_name_is_refused(installation: Installation) -> None:
    done = installation.run("worker", "--queues", "default,mail.fast")
    assert done.returncode == 2
    assert "JOBTAPE_QUEUES: String should match" in only_line(done.stderr)


def test_modules_are_found_in_app_dir(installation: Installation) -> None:
    (installation.folder / "inner").mkdir()
    (installation.folder / "jobs_here.py").rename(installation.folder / "inner" / "jobs_here.py")
    program = installation.start("worker", "--app-dir", "inner")
    program.line_with("trying again until it answers")
    program.send(signal.SIGTERM)
    assert program.code() == 0
