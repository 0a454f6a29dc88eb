"""What ``make run`` writes into ``.jobtape/`` for other programs.

    env                                  shell assignments: its broker, view and namespace, for programs beside it
    <broker>/<namespace>/broker.json     for ``make clean``: the exchanges and queues on a broker that is not ours

Both may hold a password. Standard library only.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.clone import write_private

SHARED = ("RABBITMQ_URL", "DATABASE_URL", "JOBTAPE_NAMESPACE")


def write_env(path: Path, settings: Mapping[str, str]) -> None:
    """Write the shell assignments to ``path``."""
    write_private(path, "".join(f"{name}={shlex.quote(settings[name])}\n" for name in SHARED if name in settings))


@dataclass(frozen=True)
class Trace:
    """A namespace on a broker that is not ours. ``queues`` are work queues; ``shown`` is the URL without password."""

    url: str
    shown: str
    namespace: str
    queues: tuple[str, ...] = ()


def write_trace(folder: Path, url: str, shown: str, namespace: str, queues: Iterable[str]) -> None:
    """Write a trace into ``folder``. It keeps the queues that an earlier run wrote there."""
    path = folder / "broker.json"
    known = read_trace(path).queues if path.exists() else ()
    write_private(path, json.dumps(asdict(Trace(url, shown, namespace, tuple(sorted({*known, *queues}))))))


def read_trace(path: Path) -> Trace:
    """Read what ``write_trace`` wrote."""
    kept = json.loads(path.read_text())
    return Trace(**kept | {"queues": tuple(kept["queues"])})


def find_traces(data: Path) -> Iterator[Path]:
    """Return the files of all traces below ``data``."""
    yield from sorted(data.glob("*/*/broker.json"))
