"""The files of a private RabbitMQ node: what it is called, where it listens, how it is configured.

Everything stands in one folder, so that a node started there again goes on with its data under its old name:

    node.json           name, user, password, ports          (kept)
    home/.erlang.cookie the secret of its command line tools  (kept)
    data/ log/          the broker's own                      (kept)
    rabbitmq.conf advanced.config enabled_plugins env.conf    (written at every start)
    rabbitmqctl         the node's own                        (written at every start)
    node.pid            process id of the last start
    lock                held while a process of ours uses the folder

Standard library only: `make clean` needs it when there is no .venv.
"""

import json
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.clone import short_hash
from tools.files import write_private
from tools.processes.locks import end_leftover
from tools.processes.ports import free_port

# Without it dead-lettering of a 3.10 node stands still for up to three minutes after a restart.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 3000}]}].\n"
LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
# Schedulers that don't spin: an idle broker on a developer's machine should cost nothing.
IDLE = "+sbwt none +sbwtdcpu none +sbwtdio none"


@dataclass(frozen=True)
class NodeSettings:
    """What a node keeps between its starts. Ports are on 127.0.0.1."""

    name: str
    user: str
    password: str
    amqp_port: int
    dist_port: int
    epmd_port: int


def load_settings(folder: Path) -> NodeSettings:
    """The settings in `folder`, new ones where there are none; a port that is taken by now is replaced."""
    path = folder / "node.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    ports: dict[str, int] = {}
    for field in ("amqp_port", "dist_port", "epmd_port"):
        ports[field] = free_port(old.get(field), avoid=set(ports.values()))
    settings = NodeSettings(
        name=old.get("name", f"jobtape-{short_hash(str(folder))}@localhost"),
        user=old.get("user", "jobtape"),
        password=old.get("password", secrets.token_hex(12)),
        **ports,
    )
    write_private(path, json.dumps(asdict(settings), indent=2))
    return settings


def write_files(folder: Path, settings: NodeSettings, extra_config: Sequence[str], plugins: Sequence[str] = ()) -> None:
    """Writes the configuration; `extra_config` are more lines for rabbitmq.conf, which win over ours."""
    for name in ("home", "data", "log", "conf.d"):
        (folder / name).mkdir(exist_ok=True)
    cookie = folder / "home" / ".erlang.cookie"
    if not cookie.exists():
        write_private(cookie, secrets.token_hex(16))
        cookie.chmod(0o400)
    lines = [
        f"listeners.tcp.local = 127.0.0.1:{settings.amqp_port}",
        f"default_user = {settings.user}",
        f"default_pass = {settings.password}",
        "disk_free_limit.absolute = 50MB",
        "log.console = false",
        f"log.file = {folder / 'log' / 'rabbitmq.log'}",
        *extra_config,
    ]
    write_private(folder / "rabbitmq.conf", "\n".join(lines) + "\n")
    (folder / "advanced.config").write_text(ADVANCED)
    (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
    # Named below so that the machine's own /etc/rabbitmq has no say here.
    (folder / "env.conf").write_text("")


def write_program(path: Path, program: Path, environment: Mapping[str, str]) -> None:
    """Writes a script at `path` that runs `program` in `environment`."""
    ours = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in ours.items()]
    write_private(path, "\n".join(["#!/bin/sh", *exports, f'exec {shlex.quote(str(program))} "$@"', ""]))
    path.chmod(0o700)


def take_cookie(source: Path, folder: Path) -> None:
    """Gives the node in `folder`, which was not started yet, the cookie of the one in `source`."""
    (folder / "home").mkdir(exist_ok=True)
    cookie = folder / "home" / ".erlang.cookie"
    if not cookie.exists():
        write_private(cookie, (source / "home" / ".erlang.cookie").read_text())
        cookie.chmod(0o400)


def node_environment(folder: Path, settings: NodeSettings) -> dict[str, str]:
    """The environment for the server and its command line tools: ours alone, nothing of another node's."""
    foreign = ("RABBITMQ_", "ERL_", "JOBTAPE_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    inherited.pop("NOTIFY_SOCKET", None)
    # Debian keeps rabbitmq's helpers there, and root's PATH need not.
    path = f"{inherited.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin".lstrip(":")
    return inherited | {
        "PATH": path,
        "HOME": str(folder / "home"),
        "ERL_EPMD_PORT": str(settings.epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": settings.name,
        "RABBITMQ_DIST_PORT": str(settings.dist_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "log" / "rabbitmq.pid"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "conf.d" / "generated"),
        "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "data" / "plugins"),
        # The unknown flag does nothing but mark the process as this node's, for whoever finds its id in a file.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{LOOPBACK} {IDLE} -jobtape_node {settings.name}",
        "RABBITMQ_CTL_ERL_ARGS": LOOPBACK,
        # Makes the script become the Erlang machine instead of waiting for it, so that signals reach the server.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def find_server() -> Path | None:
    """RabbitMQ's own start script: on the PATH or where distributions put it, None when it isn't installed.

    Not the wrapper that Debian has in sbin: that one becomes the user `rabbitmq`. The real one has rabbitmq-env beside.
    """
    on_path = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders.append(Path("/usr/lib/rabbitmq/bin"))
    folders += sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True)
    folders += [Path("/opt/homebrew/opt/rabbitmq/sbin"), Path("/usr/local/opt/rabbitmq/sbin")]
    for folder in folders:
        if (folder / "rabbitmq-env").exists() and os.access(folder / "rabbitmq-server", os.X_OK):
            return folder / "rabbitmq-server"
    return None


def find_epmd() -> Path | None:
    """Erlang's port mapper, which every node needs; None when Erlang isn't installed."""
    on_path = shutil.which("epmd")
    if on_path:
        return Path(on_path)
    erl = shutil.which("erl")
    roots = [Path("/usr/lib/erlang")] + ([Path(erl).resolve().parent.parent] if erl else [])
    found = [path for root in roots for path in root.glob("**/erts-*/bin/epmd")]
    return found[0] if found else None


def end_leftover_node(folder: Path) -> bool:
    """Ends the node that an earlier run left in `folder`, if there is one; true if there was.

    Only for whoever holds the folder's lock: a node in use looks the same.
    """
    path = folder / "node.pid"
    if not path.exists():
        return False
    pid, _, name = path.read_text().partition(" ")
    found = bool(name) and pid.isdigit() and end_leftover(int(pid), f"-jobtape_node {name}")
    path.unlink()
    return found
