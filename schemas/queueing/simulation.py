"""Simulates when past jobs would have been placed under other limits, with the rules of ``gates``.

Theory of operation. Each run is due at its time and needs its slots for as long as it did in fact, from its first start
to its end. Everything else follows: as in the projector (``held_jobs``), jobs with the same ordering key, or else with
the same gates, form a group, of which only the first job can be placed. A group whose first job meets a closed gate
waits for that gate; when it opens, the group that has waited longest comes first. Time jumps from one event to the
next, so the result depends on nothing but the runs.
"""

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from jobtape.schemas.queueing.gates import Gate, Gates, GateState

_LONG_BEFORE: Final = 86_400.0
"""Seconds between the start of the clock and the first run, so that all rates are unused at the beginning."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of the past. Times are in seconds of one clock.

    ``due``: when it could have been placed without any gate. ``seconds``: from its first start to its end.
    """

    job_id: str
    job_type: str
    gates: Gates
    due: float
    seconds: float


@dataclass(slots=True, eq=False)
class _Group:
    runs: deque[int] = field(default_factory=deque)


class _Simulation:
    def __init__(self, runs: Sequence[PastRun]) -> None:
        self._runs = runs
        self.placed = [0.0] * len(runs)
        start = min((run.due for run in runs), default=0.0)
        self._state = GateState(start - _LONG_BEFORE)
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)
        self._blocked_at: defaultdict[Gate, deque[_Group]] = defaultdict(deque)
        self._blocked: dict[_Group, Gate] = {}
        self._numbers = itertools.count()
        # At the same time an end comes before an opening, and that before a new job.
        self._agenda: list[tuple[float, int, int, Gate | int]] = []
        self._openings: set[tuple[Gate, float]] = set()

    def run(self) -> None:
        """Place all runs, and note when."""
        for n, run in enumerate(self._runs):
            self._add(run.due, 2, n)
        while self._agenda:
            now, _, _, what = heapq.heappop(self._agenda)
            if isinstance(what, tuple):
                self._openings.discard((what, now))
                self._open(what, now)
            elif what < 0:
                for gate in self._state.free(self._runs[~what].job_id):
                    self._open(gate, now)
            else:
                self._arrive(what, now)

    def _add(self, time: float, kind: int, what: Gate | int) -> None:
        heapq.heappush(self._agenda, (time, kind, next(self._numbers), what))

    def _arrive(self, n: int, now: float) -> None:
        run = self._runs[n]
        group = self._groups[run.gates.group(run.job_type)]
        group.runs.append(n)
        if group not in self._blocked:
            self._advance(group, now)

    def _open(self, gate: Gate, now: float) -> None:
        """Let the groups that wait for a gate use it, the one that has waited longest first, until it is closed."""
        blocked = self._blocked_at[gate]
        while blocked:
            group = blocked[0]
            closed = self._closed(group, now)
            if closed is not None and closed[0] == gate:
                self._note_opening(*closed)
                return
            blocked.popleft()
            del self._blocked[group]
            if closed is None:
                # One job, then it is the turn of the next group.
                self._place(group, now)
            if group.runs:
                self._wait_or_advance(group, now)

    def _wait_or_advance(self, group: _Group, now: float) -> None:
        """Put a group behind those that wait for the same gate, or let it go on if none is closed."""
        closed = self._closed(group, now)
        if closed is None:
            gates = self._runs[group.runs[0]].gates
            behind = next((gate for gate in _gates_of(gates) if self._blocked_at[gate]), None)
            if behind is None:
                self._advance(group, now)
                return
            closed = (behind, None)
        self._block(group, *closed)

    def _advance(self, group: _Group, now: float) -> None:
        """Place runs of a group until it meets a closed gate or has no more."""
        while group.runs:
            if (closed := self._closed(group, now)) is not None:
                self._block(group, *closed)
                return
            self._place(group, now)

    def _closed(self, group: _Group, now: float) -> tuple[Gate, float | None] | None:
        return self._state.closed_gate(self._runs[group.runs[0]].gates, now)

    def _block(self, group: _Group, gate: Gate, opens: float | None) -> None:
        self._blocked_at[gate].append(group)
        self._blocked[group] = gate
        self._note_opening(gate, opens)

    def _note_opening(self, gate: Gate, opens: float | None) -> None:
        if opens is not None and (gate, opens) not in self._openings:
            self._openings.add((gate, opens))
            self._add(opens, 1, gate)

    def _place(self, group: _Group, now: float) -> None:
        n = group.runs.popleft()
        run = self._runs[n]
        self.placed[n] = now
        self._state.take_slots(run.job_id, run.gates, now)
        self._add(now + run.seconds, 0, ~n)


def _gates_of(gates: Gates) -> list[Gate]:
    order: list[Gate] = [] if gates.ordering_key is None else [("", gates.ordering_key)]
    return order + [limit.gate for limit in gates.limits]


def simulated_waits(runs: Sequence[PastRun]) -> list[float]:
    """Return how many seconds each run would have waited for its gates, in the order of ``runs``.

    ``runs`` are in the order of the tape. Unlike in the projector, a delayed job takes its place among those with the
    same ordering key when it is due. Unique and debounce keys must have been removed from the gates.
    """
    simulation = _Simulation(runs)
    simulation.run()
    return [placed - run.due for run, placed in zip(runs, simulation.placed, strict=True)]
