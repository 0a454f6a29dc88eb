"""The files of a private RabbitMQ node, and where RabbitMQ is installed.

One folder has all of them, so that a node that starts there again continues with its data under its old name:

    node.json           name, user, password, ports           (kept)
    home/.erlang.cookie the secret of its command line tools  (kept)
    data/ log/          the broker's own                      (kept)
    rabbitmq.conf advanced.config enabled_plugins env.conf    (written at every start)
    lock children.lock  held by the parent and by the node
"""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.clone import short_hash, write_private
from tools.processes.ports import free_port

# Without it, dead-lettering of a 3.10 node can pause for up to three minutes after a restart.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 3000}]}].\n"
WAL_LIMIT = 64 * 2**20
"""Bytes of the log of quorum queues that RabbitMQ also keeps in memory, until it moves them to files of their own. Its
default is 512 MiB, which a long backlog fills. Its guide to quorum queues has this value as an example."""
LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
# Schedulers that do not spin: an idle broker should cost nothing.
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
    """Return the settings in ``folder``, or new ones. A port that is no longer free is replaced."""
    path = folder / "node.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    ports: dict[str, int] = {}
    for field in ("amqp_port", "dist_port", "epmd_port"):
        ports[field] = free_port(old.get(field), avoid=ports.values())
    settings = NodeSettings(
        name=old.get("name", f"jobtape-{short_hash(str(folder))}@localhost"),
        user=old.get("user", "jobtape"),
        password=old.get("password", secrets.token_hex(12)),
        **ports,
    )
    write_private(path, json.dumps(asdict(settings), indent=2))
    return settings


def ensure_cookie(folder: Path) -> None:
    """Give the node in ``folder`` a cookie if it has none."""
    (folder / "home").mkdir(exist_ok=True)
    cookie = folder / "home" / ".erlang.cookie"
    if not cookie.exists():
        write_private(cookie, secrets.token_hex(16))
        cookie.chmod(0o400)


def write_files(folder: Path, settings: NodeSettings, extra_config: Sequence[str], plugins: Sequence[str]) -> None:
    """Write the configuration. ``extra_config`` are more lines for rabbitmq.conf; they win over ours."""
    for name in ("data", "log", "conf.d"):
        (folder / name).mkdir(exist_ok=True)
    lines = [
        f"listeners.tcp.local = 127.0.0.1:{settings.amqp_port}",
        f"default_user = {settings.user}",
        f"default_pass = {settings.password}",
        "disk_free_limit.absolute = 50MB",
        f"raft.wal_max_size_bytes = {WAL_LIMIT}",
        "log.console = false",
        f"log.file = {folder / 'log' / 'rabbitmq.log'}",
        *extra_config,
    ]
    write_private(folder / "rabbitmq.conf", "\n".join(lines) + "\n")
    (folder / "advanced.config").write_text(ADVANCED)
    (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
    # Empty, and named below, so that the machine's /etc/rabbitmq does not apply.
    (folder / "env.conf").write_text("")


def node_environment(folder: Path, settings: NodeSettings) -> dict[str, str]:
    """Return the environment for the server and its command line tools, without variables for another node."""
    foreign = ("RABBITMQ_", "ERL_", "JOBTAPE_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    inherited.pop("NOTIFY_SOCKET", None)
    # Debian keeps RabbitMQ's helpers there, and they may be missing in root's PATH.
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
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{LOOPBACK} {IDLE}",
        "RABBITMQ_CTL_ERL_ARGS": LOOPBACK,
        # Lets the script replace itself by the Erlang machine, so that signals reach the server.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def find_server() -> Path | None:
    """Return RabbitMQ's own start script, from the PATH or a usual folder, or None if it is not installed.

    Debian has a wrapper in sbin that switches to the user ``rabbitmq``. The real script has rabbitmq-env beside it.
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
    """Return Erlang's port mapper, which every node needs, or None if Erlang is not installed."""
    folders = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/local/bin:/opt/homebrew/bin:/usr/lib/erlang/bin"
    found = shutil.which("epmd", path=folders)
    return Path(found) if found else None
