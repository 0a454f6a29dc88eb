"""Processor time and memory of processes with all their children (Linux only)."""

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
PARENT, USER, CHILDREN_SYSTEM = 1, 11, 15
"""Fields of ``/proc/<pid>/stat`` after the name: the parent, and the four processor times (the last is excluded)."""


@dataclass(frozen=True)
class Usage:
    """Processor time in seconds, and memory in MiB, of which shared pages are divided among those that share them."""

    cpu: float
    memory: float


def usage(pid: int) -> Usage:
    """Return what a process and its descendants have used so far."""
    stats = _stats()
    family = _family(pid, stats)
    ticks = sum(sum(int(value) for value in stats[each][USER:CHILDREN_SYSTEM]) for each in family if each in stats)
    return Usage(ticks / TICKS, sum(_memory(each) for each in family))


def usages(pids: Mapping[str, int]) -> dict[str, Usage]:
    """Same as ``usage``, for several processes by name."""
    return {name: usage(pid) for name, pid in pids.items()}


def parent_of(pid: int) -> int:
    """Return the process id of the parent."""
    return int(_stats()[pid][PARENT])


def _stats() -> dict[int, list[str]]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has just ended
                found[int(folder.name)] = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return found


def _family(pid: int, stats: Mapping[int, list[str]]) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for each, fields in stats.items():
        children[int(fields[PARENT])].append(each)
    family = [pid]
    for each in family:
        family += children[each]
    return family


def _memory(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
