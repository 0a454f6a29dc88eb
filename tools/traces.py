"""What `make run` leaves in `.jobtape/` for others: where it runs, and what is its own on somebody else's broker.

    env                                  for a shell: its broker, view and namespace, for programs started beside it
    <broker>/<namespace>/broker.json     for `make clean`: which exchanges and queues to take away from a found broker

Both may hold a password. Standard library only.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tools.files import write_private

SHARED = ("RABBITMQ_URL", "DATABASE_URL", "JOBTAPE_NAMESPACE")


def write_env(path: Path, settings: Mapping[str, str]) -> None:
    """The shell assignments to `path`."""
    write_private(path, "".join(f"{name}={shlex.quote(settings[name])}\n" for name in SHARED if name in settings))


@dataclass(frozen=True)
class Trace:
    """A namespace on a broker that isn't ours: `shown` is its URL without the password, `queues` the work queues."""

    url: str
    shown: str
    namespace: str
    queues: tuple[str, ...] = ()


def write_trace(folder: Path, trace: Trace, queues: Iterable[str] = ()) -> None:
    """Keeps `trace` in `folder`, with `queues` and with those that an earlier run had there."""
    path = folder / "broker.json"
    known = read_trace(path).queues if path.exists() else ()
    write_private(path, json.dumps(asdict(replace(trace, queues=tuple(sorted({*known, *trace.queues, *queues}))))))


def read_trace(path: Path) -> Trace:
    """What `write_trace` kept."""
    kept = json.loads(path.read_text())
    return Trace(kept["url"], kept["shown"], kept["namespace"], tuple(kept["queues"]))


def find_traces(data: Path) -> Iterator[Path]:
    """The files of all traces below `data`."""
    yield from sorted(data.glob("*/*/broker.json"))
