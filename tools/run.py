"""`make run`: finds or starts a broker, runs `jobtape up` on it, and says where to look once it is ready.

The view belongs to one tape, so it lies in `.jobtape/<broker>/<namespace>/`: another broker gets another view. What the
user sets in the environment (RABBITMQ_URL, DATABASE_URL, JOBTAPE_*) wins. Ctrl-C ends the application and then
the broker, if it is one that we started; the exit code is the application's. It runs once in a clone: the workers of
two would share one namespace, and fail each other's jobs when they have other modules.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from jobtape.environment import is_service_address
from jobtape.schemas.urls import without_password
from tools.brokers.find import Broker, BrokerError, find_broker
from tools.clone import DATA, ROOT, clone_name
from tools.processes.locks import FolderInUseError, FolderLock
from tools.processes.ports import free_port, is_free
from tools.processes.tether import die_with_parent
from tools.ready import NotReadyError, base_url, job_types, wait_until_ready
from tools.traces import Trace, write_env, write_trace

READY_LIMIT = 60.0  # seconds
EXAMPLE = '{"type":"add","payload":{"x":3,"y":4}}'


class RunError(Exception):
    """Why it can't run, in words that say what to do."""


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of the API, port 0 replaced by a free one; raises RunError when the port is taken."""
    host, text = environment.get("JOBTAPE_HOST") or "127.0.0.1", environment.get("JOBTAPE_PORT") or "8000"
    if is_service_address(text):  # Kubernetes sets it for a Service called jobtape
        text = "8000"
    if not text.isdecimal() or int(text) > 65535:
        raise RunError(f"JOBTAPE_PORT={text} is no port: use a number up to 65535, 0 for any free one.")
    port = int(text) or free_port()
    if not is_free(port, host):
        another = free_port(port + 1) if port < 65535 else free_port()
        raise RunError(
            f"{host} port {port} can't be listened on, something else probably does: "
            f"stop that, or choose another port: JOBTAPE_PORT={another} make run"
        )
    return host, port


def settings_for(broker: Broker, host: str, port: int, given: Mapping[str, str], data: Path) -> dict[str, str]:
    """The application's environment: `given` and, where it says nothing, this clone's own values.

    Makes the folder of the view below `data`.
    """
    namespace = given.get("JOBTAPE_NAMESPACE") or clone_name()
    view = data / broker.identity / namespace / "view.db"
    view.parent.mkdir(parents=True, exist_ok=True)
    ours = {"DATABASE_URL": f"sqlite:///{view}", "JOBTAPE_NAMESPACE": namespace, "JOBTAPE_JOBS": "examples.jobs"}
    settings = dict(given)
    for name, value in ours.items():
        settings[name] = given.get(name) or value
    # Not what was given: that broker may be the one that didn't answer.
    settings["RABBITMQ_URL"] = broker.url
    settings["JOBTAPE_HOST"], settings["JOBTAPE_PORT"] = host, str(port)
    return settings


def welcome(base: str, env: str, with_key: bool, with_example: bool = True) -> str:
    """What to do now; the last thing on the screen. `env` is the file for programs beside it."""
    # Double quotes around the variable, so that the shell fills it in and the key isn't printed.
    key = ' -H "authorization: Bearer $JOBTAPE_API_KEY"' if with_key else ""
    example = f"/jobs{key} -H {shlex.quote('content-type: application/json')} -d {shlex.quote(EXAMPLE)}"
    curl = rf"curl -s -w '\n' {base}" + (example if with_example else f"/job-types{key}")
    return (
        f"\nFor your own application, or other parts, beside it: set -a; . {shlex.quote(env)}; set +a\n"
        f"Jobtape is ready: {base}/docs (Ctrl-C stops it)\n\n  {curl}\n"
    )


def run(command: list[str], environment: Mapping[str, str], data: Path = DATA) -> int:
    """Runs `command` (`jobtape up`) on a broker until it ends; returns its exit code, 128 + n after signal n.

    Raises RunError or BrokerError before it starts. An application that isn't ready in time is ended: exit code 1.
    """
    with _alone(data):
        host, port = address(environment)
        broker = find_broker(data, _say, environment)
        try:
            return _run_on(broker, command, settings_for(broker, host, port, environment, data), data)
        finally:
            broker.stop()


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    data.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock(data)
    except FolderInUseError as error:
        raise RunError(f"this clone runs already, and runs once: {error}") from None
    try:
        yield
    finally:
        lock.release()


def _run_on(broker: Broker, command: list[str], settings: Mapping[str, str], data: Path) -> int:
    write_env(data / "env", settings)
    _leave_trace(broker, settings, data)
    child = subprocess.Popen(
        command,
        env=settings,
        cwd=ROOT,
        # Ctrl-C in a terminal would reach it twice, from the terminal and from us, and twice means at once.
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # noqa: PLW1509 (one thread by now)
    )
    _forward_signals(child)
    base, key = base_url(settings["JOBTAPE_HOST"], int(settings["JOBTAPE_PORT"])), settings.get("JOBTAPE_API_KEY")
    unready = ""
    try:
        wait_until_ready(base, key, lambda: child.poll() is None, READY_LIMIT)
    except NotReadyError as error:
        unready = str(error)
    known = job_types(base, key)
    _leave_trace(broker, settings, data, known.values())
    if unready:
        _say(unready)
        child.terminate()
        return _exit_code(child) or 1
    with_example = not known or "add" in known
    _say(welcome(base, _from_here(data / "env"), with_key=bool(key), with_example=with_example))
    return _exit_code(child)


def _leave_trace(broker: Broker, settings: Mapping[str, str], data: Path, queues: Iterable[str] = ()) -> None:
    """A broker of our own goes whole; on another one `make clean` needs to know what is ours."""
    if broker.kind in ("url", "local"):
        namespace = settings["JOBTAPE_NAMESPACE"]
        served = [queue.strip() for queue in settings.get("JOBTAPE_QUEUES", "").split(",") if queue.strip()]
        trace = Trace(broker.url, without_password(broker.url), namespace, tuple(served))
        write_trace(data / broker.identity / namespace, trace, queues)


def _from_here(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    code = child.wait()
    return code if code >= 0 else 128 - code


def _forward_signals(child: subprocess.Popen[bytes]) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        if child.poll() is None:
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)


def _stop_asked(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """The exit code for the shell; errors as text on stderr."""
    # Until the application runs, SIGTERM unwinds as Ctrl-C does, so that a broker just started is stopped.
    signal.signal(signal.SIGTERM, _stop_asked)
    try:
        return run([str(Path(sys.executable).with_name("jobtape")), "up"], os.environ)
    except (RunError, BrokerError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
