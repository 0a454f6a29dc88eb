"""The graph of a flow: which nodes can begin, which are skipped, and how the flow ends.

Everything is decided from the outcomes of the nodes that have begun, so every projector that knows these decides the
same. A node is decided when all nodes that it comes after have ended:

* ``on="success"`` begins it if they have all succeeded, ``on="failure"`` if there is a failure before it, ``on="done"``
  in any case. Otherwise it is skipped.
* There is a **failure before** a node if a node that it comes after has failed, or was skipped because of a failure
  before that one. So the failure reaches the first node that waits for it, however far it is.
* A node with ``on="failure"`` or ``"done"`` **handles** the failures that reach it. A flow in which a failure is not
  handled fails. With ``stop="now"`` nothing further begins after such a failure.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

On = Literal["success", "failure", "done"]
Stop = Literal["end", "now"]
_SHOWN: Final = 10
"""Nodes of a circle that a message names."""


class NodeState(StrEnum):
    """The states of a node. One that is ``waiting`` has no job yet in this run of the flow; one that is ``skipped``
    gets none."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


OVER: Final = frozenset({NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED})


@dataclass(frozen=True, slots=True)
class Node:
    """``after``: the names of the nodes that have to end first."""

    after: tuple[str, ...] = ()
    on: On = "success"


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from the outcomes. ``ready``: the nodes to begin now, which are ``waiting``. ``stopped``: nothing
    further begins, and what runs is to be cancelled. ``unhandled``: the failed nodes because of which the flow fails.
    """

    states: Mapping[str, NodeState]
    ready: list[str]
    unhandled: list[str]
    stopped: bool

    @property
    def ended(self) -> bool:
        """Whether all nodes have ended."""
        return self.over == len(self.states)

    @property
    def over(self) -> int:
        """How many nodes have ended."""
        return sum(state in OVER for state in self.states.values())


class Graph:
    """A graph without ``faults``; with faults ``decide`` is not defined."""

    def __init__(self, nodes: Mapping[str, Node], stop: Stop = "end") -> None:
        self.nodes = dict(nodes)
        self.stop: Stop = stop
        self._dependants: dict[str, list[str]] = {name: [] for name in nodes}
        for name, node in nodes.items():
            for other in node.after:
                self._dependants.get(other, []).append(name)
        self.order = self._sorted()
        """The names of the nodes, each behind those that it comes after."""
        self._handled: set[str] = set()
        for name in reversed(self.order):
            if any(nodes[each].on != "success" or each in self._handled for each in self._dependants[name]):
                self._handled.add(name)

    @property
    def last(self) -> list[str]:
        """The nodes after which none comes but those that wait for a failure."""
        found = self._dependants.items()
        return [name for name, others in found if all(self.nodes[other].on == "failure" for other in others)]

    def from_on(self, name: str) -> set[str]:
        """Return the node and all that come after it, directly or not."""
        found, left = {name}, [name]
        while left:
            new = [other for other in self._dependants[left.pop()] if other not in found]
            found.update(new)
            left += new
        return found

    def handles_failure_of(self, name: str) -> bool:
        """Return whether a node handles a failure of this one."""
        return name in self._handled

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the graph: the name of a node, and the message."""
        for name, node in self.nodes.items():
            for other in node.after:
                if other not in self.nodes:
                    yield name, f"there is no node {other!r} in this flow"
            if node.on == "failure" and not node.after:
                yield name, "a node that waits for a failure has to come after another one"
        if rest := self._circle():
            shown = " → ".join([*rest[:_SHOWN], *(["…"] if len(rest) > _SHOWN else []), rest[0]])
            yield rest[0], f"these nodes wait for each other: {shown}"

    def decide(
        self, outcomes: Mapping[str, NodeState], failing_early: Iterable[str] = (), *, ended: bool = False
    ) -> Decision:
        """Return what follows. ``outcomes``: running, succeeded or failed, of each node that has begun.

        ``failing_early``: nodes of which a job has failed while others run. ``ended``: nothing more begins.
        """
        states: dict[str, NodeState] = {}
        ready: list[str] = []
        failing: set[str] = set()
        """The nodes that failed, or were skipped because of a failure before them."""
        failed = [name for name, outcome in outcomes.items() if outcome is NodeState.FAILED]
        unhandled = [name for name in failed if name not in self._handled]
        stopped = ended or (self.stop == "now" and (bool(unhandled) or not self._handled.issuperset(failing_early)))
        for name in self.order:
            node = self.nodes[name]
            state = outcomes.get(name)
            if state is None:
                state = NodeState.WAITING
                if stopped:
                    state = NodeState.SKIPPED
                elif all(states[other] in OVER for other in node.after):
                    if self._begins(node, states, failing):
                        ready.append(name)
                    else:
                        state = NodeState.SKIPPED
            states[name] = state
            reached = state is NodeState.SKIPPED and not failing.isdisjoint(node.after)
            if state is NodeState.FAILED or reached:
                failing.add(name)
        return Decision({name: states[name] for name in self.nodes}, ready, unhandled, stopped)

    @staticmethod
    def _begins(node: Node, states: Mapping[str, NodeState], failing: set[str]) -> bool:
        if node.on == "success":
            return all(states[other] is NodeState.SUCCEEDED for other in node.after)
        return node.on == "done" or not failing.isdisjoint(node.after)

    def _sorted(self) -> list[str]:
        """Return the nodes, each behind those that it comes after, without nodes that wait for each other."""
        missing = {name: sum(other in self.nodes for other in set(node.after)) for name, node in self.nodes.items()}
        free = deque(name for name, number in missing.items() if not number)
        found: list[str] = []
        while free:
            name = free.popleft()
            found.append(name)
            for dependant in dict.fromkeys(self._dependants[name]):
                missing[dependant] -= 1
                if not missing[dependant]:
                    free.append(dependant)
        return found

    def _circle(self) -> list[str]:
        """Return nodes that wait for each other, each behind the one that waits for it; empty if there are none."""
        stuck = self.nodes.keys() - set(self.order)
        if not stuck:
            return []
        path: dict[str, None] = {}
        name = min(stuck)
        while name not in path:
            path[name] = None
            name = next(other for other in self.nodes[name].after if other in stuck)
        names = list(path)
        return names[names.index(name) :]
