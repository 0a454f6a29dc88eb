"""``make run``: find or start a broker, run ``jobtape up`` on it, and say how to use it once it is ready.

The view belongs to one tape. It is in ``.jobtape/<broker>/<namespace>/``, so another broker gets another view. The
user's variables (RABBITMQ_URL, DATABASE_URL, JOBTAPE_*) win. Ctrl-C ends the application and then the broker, if this
program started it. The exit code is the application's.

It runs once in a clone: the workers of two runs would share a namespace, and with different modules they would fail
each other's jobs.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FrameType

from jobtape.environment import is_service_address
from tools.brokers.find import Broker, BrokerError, find_broker
from tools.brokers.node import NodeError
from tools.clone import DATA, ROOT, clone_name, write_private
from tools.processes.locks import FolderInUseError, FolderLock
from tools.processes.ports import free_port, is_free
from tools.processes.tether import die_with_parent
from tools.ready import NotReadyError, base_url, wait_until_ready

READY_LIMIT = 60.0  # seconds
BROKER_PAUSE = 2.0  # seconds between two looks at a broker that this program started
EXAMPLES = "examples.jobs"
EXAMPLE = '{"type":"add","payload":{"x":3,"y":4}}'


_say = partial(print, flush=True)


class RunError(Exception):
    """Why it cannot run, and what to do."""


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port of the API. Port 0 becomes a free one. Raises RunError if the port is taken."""
    host, text = environment.get("JOBTAPE_HOST") or "127.0.0.1", environment.get("JOBTAPE_PORT") or "8000"
    if is_service_address(text):  # Kubernetes sets it for a Service called jobtape
        text = "8000"
    if not text.isdecimal() or int(text) > 65535:
        raise RunError(f"JOBTAPE_PORT={text} is no port: use a number up to 65535, or 0 for a free one.")
    port = int(text) or free_port()
    if not is_free(port, host):
        raise RunError(
            f"cannot listen on {host} port {port}, probably because another program does: "
            f"stop that, or choose another port: JOBTAPE_PORT={free_port()} make run"
        )
    return host, port


def settings_for(broker: Broker, host: str, port: int, given: Mapping[str, str], data: Path) -> dict[str, str]:
    """Return the application's environment: ``given``, and this clone's values for what is missing there.

    Makes the folder of the view below ``data``.
    """
    namespace = given.get("JOBTAPE_NAMESPACE") or clone_name()
    view = data / broker.identity / namespace / "view.db"
    view.parent.mkdir(parents=True, exist_ok=True)
    ours = {"DATABASE_URL": f"sqlite:///{view}", "JOBTAPE_JOBS": EXAMPLES}
    settings = dict(given) | {name: given.get(name) or value for name, value in ours.items()}
    # Not the given URL: that broker may not have answered.
    settings["RABBITMQ_URL"] = broker.url
    settings["JOBTAPE_NAMESPACE"] = namespace
    settings["JOBTAPE_HOST"], settings["JOBTAPE_PORT"] = host, str(port)
    return settings


def write_env(path: Path, settings: Mapping[str, str]) -> None:
    """Write shell assignments of broker, view, namespace and API to ``path``, for programs beside the application."""
    names = ("RABBITMQ_URL", "DATABASE_URL", "JOBTAPE_NAMESPACE")
    values = {name: settings[name] for name in names if name in settings}
    values["JOBTAPE_URL"] = base_url(settings["JOBTAPE_HOST"], int(settings["JOBTAPE_PORT"]))
    write_private(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))


def welcome(base: str, env: str, with_key: bool, with_example: bool = True) -> str:
    """Return the last text on the screen: what to do now. ``env`` is the file for programs beside it."""
    # The shell fills in the variable, so that the key is not printed.
    key = ' -H "authorization: Bearer $JOBTAPE_API_KEY"' if with_key else ""
    example = f"/jobs{key} -H {shlex.quote('content-type: application/json')} -d {shlex.quote(EXAMPLE)}"
    curl = rf"curl -s -w '\n' {base}" + (example if with_example else f"/job-types{key}")
    return (
        f"\nFor your own application, or other parts, beside it: set -a; . {shlex.quote(env)}; set +a\n"
        f"Jobtape is ready (Ctrl-C stops it)\n\n  dashboard: {base}/\n  API: {base}/docs\n\n  {curl}\n"
    )


def run(command: list[str], environment: Mapping[str, str], data: Path = DATA) -> int:
    """Run ``command`` (``jobtape up``) on a broker until it ends. Return its exit code, 128 + n after signal n.

    An application that is not ready in time is ended. Raises RunError or BrokerError if it cannot start.
    """
    data.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock(data)
    except FolderInUseError as error:
        raise RunError(f"this clone runs already, and runs once: {error}") from None
    try:
        host, port = address(environment)
        broker = find_broker(data, _say, environment)
        try:
            return _run_with(command, settings_for(broker, host, port, environment, data), data, broker)
        finally:
            broker.stop()
    finally:
        lock.release()


def _run_with(command: list[str], settings: Mapping[str, str], data: Path, broker: Broker) -> int:
    write_env(data / "env", settings)
    child = subprocess.Popen(
        command,
        env=settings,
        cwd=ROOT,
        # In the terminal's group it would get Ctrl-C twice, from the terminal and from us. Twice ends it at once.
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # noqa: PLW1509 (there is one thread now)
    )
    _forward_signals(child)
    base, key = base_url(settings["JOBTAPE_HOST"], int(settings["JOBTAPE_PORT"])), settings.get("JOBTAPE_API_KEY")
    try:
        wait_until_ready(base, key, lambda: child.poll() is None, READY_LIMIT)
    except NotReadyError as error:
        _say(error)
        child.terminate()
        return _exit_code(child) or 1
    env = data / "env"
    shown = env.relative_to(ROOT) if env.is_relative_to(ROOT) else env
    _say(welcome(base, str(shown), bool(key), with_example=settings["JOBTAPE_JOBS"] == EXAMPLES))
    while True:
        try:
            child.wait(BROKER_PAUSE)
        except subprocess.TimeoutExpired:
            _revive(broker)
        else:
            return _exit_code(child)


def _revive(broker: Broker) -> None:
    try:
        if broker.revive():
            _say(f"The broker had ended; it was started again: {broker.description}")
    except NodeError as error:
        _say(f"The broker has ended and cannot be started again: {error}. Stop with Ctrl-C, then: make run")


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    code = child.wait()
    return code if code >= 0 else 128 - code


def _forward_signals(child: subprocess.Popen[bytes]) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        if child.poll() is None:
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    """Return the exit code for the shell. Errors are text on stderr."""
    # Until the application runs, SIGTERM raises like Ctrl-C, so that a broker that was just started is stopped.
    signal.signal(signal.SIGTERM, _exit)
    try:
        return run([str(Path(sys.executable).with_name("jobtape")), "up"], os.environ)
    except (RunError, BrokerError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
