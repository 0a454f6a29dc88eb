"""Flows of any shape, and a second implementation of how they end, which decides from their definitions only."""

import random
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from jobtape.schemas.flows.graph import Node, NodeState, On
from tests.schemas.flows.test_graph import Reference

Nodes = dict[str, dict[str, Any]]
Ok = Callable[[str], bool]
"""Says whether the job with this name would succeed."""


def any_flow(chance: random.Random, path: str, depth: int = 0, *, most_items: int = 3) -> Nodes:
    """Return the nodes of a flow. The names of its jobs begin with ``path``. ``most_items``: of a mapped node.

    A job ``model.step`` returns its ``name``, and a job ``model.items`` its ``items``. ``parts`` has the results of the
    nodes before.
    """
    nodes: Nodes = {}
    for n in range(chance.randint(1, 5 if depth else 7)):
        name, here = f"n{n}", f"{path}/n{n}"
        kind = chance.choice(["step", "step", "map", "flow" if depth < 2 else "step"])
        before = [other for other in nodes if chance.random() < 0.4]
        if kind == "step":
            parts = {other: {"$from": other} for other in before}
            node: dict[str, Any] = {"type": "model.step", "payload": {"name": here, "parts": parts}}
        elif kind == "flow":
            inner = any_flow(chance, here, depth + 1, most_items=most_items)
            node = {"type": "jobtape.flow", "payload": {"nodes": inner}}
        else:
            items = [{"name": f"{here}/{i}"} for i in range(chance.randint(0, most_items))]
            listed = {"type": "model.items", "payload": {"items": {"$input": "/items"}}}
            each = {"type": "model.step", "map": {"$from": "list"}}
            node = {
                "type": "jobtape.flow",
                "payload": {"input": {"items": items}, "nodes": {"list": listed, "each": each}},
            }
        nodes[name] = node | {
            "after": before,
            "on": chance.choice(["success", "done", "failure"] if before else ["success"]),
        }
    return nodes


def jobs_in(nodes: Nodes, path: str) -> Iterator[str]:
    """Yield the names of all jobs of a flow with those in it."""
    for name, node in nodes.items():
        yield from jobs_of(node, f"{path}/{name}")


def jobs_of(node: dict[str, Any], here: str) -> Iterator[str]:
    """Yield the names of the jobs of one node, whose path is ``here``."""
    if (nested := flow_in(node)) is not None:
        yield from jobs_in(nested, here)
    elif node["type"] == "jobtape.flow":
        yield from (item["name"] for item in node["payload"]["input"]["items"])
    else:
        yield here


def flow_in(node: dict[str, Any]) -> Nodes | None:
    """Return the nodes of the flow that a node is; None for a job, and for a flow that stands for a mapped node."""
    nested: Nodes | None = node["payload"].get("nodes")
    return None if nested is None or "each" in nested else nested


@dataclass(frozen=True, slots=True)
class Before:
    """How a flow has ended before it is redriven. ``states``: of the nodes by path, also of the flows in it that have
    begun. ``succeeded``: the names of the jobs that have succeeded.
    """

    states: Mapping[str, NodeState]
    succeeded: Set[str]


_NOTHING: Final = Before({}, frozenset())


class _Redriven(Reference):
    """``kept``: the nodes that have succeeded before. They stay as they are."""

    def __init__(self, nodes: dict[str, Node], good: set[str], kept: set[str]) -> None:
        super().__init__(nodes, good)
        self._kept = kept

    def end(self, name: str) -> NodeState:
        return NodeState.SUCCEEDED if name in self._kept else super().end(name)


class Model:
    """How a flow ends, from the definitions. ``states``: of all nodes by path. ``began``: the jobs that begin, or begin
    again. ``before``: of a flow that is redriven.
    """

    def __init__(self, nodes: Nodes, path: str, ok: Ok, before: Before = _NOTHING) -> None:
        self.states: dict[str, NodeState] = {}
        self.began: set[str] = set()
        graph: dict[str, Node] = {}
        good: set[str] = set()
        kept: set[str] = set()
        inner: dict[str, Model] = {}
        for name, node in nodes.items():
            on: On = node["on"]
            graph[name] = Node(tuple(node["after"]), on)
            here = f"{path}/{name}"
            if before.states.get(here) is NodeState.SUCCEEDED:
                kept.add(name)
            elif (nested := flow_in(node)) is not None:
                inner[name] = Model(nested, here, ok, before)
                if inner[name].state() == "succeeded":
                    good.add(name)
            elif all(each in before.succeeded or ok(each) for each in jobs_of(node, here)):
                good.add(name)
        reference = _Redriven(graph, good, kept)
        for name, node in nodes.items():
            here = f"{path}/{name}"
            self.states[here] = reference.end(name)
            if name in kept or self.states[here] is NodeState.SKIPPED:
                self.states |= {at: state for at, state in before.states.items() if at.startswith(f"{here}/")}
            elif name in inner:
                self.states |= inner[name].states
                self.began |= inner[name].began
            else:
                self.began.update(each for each in jobs_of(node, here) if each not in before.succeeded)
        failed = [name for name in nodes if reference.end(name) is NodeState.FAILED]
        self._succeeded = all(reference.is_handled(name) for name in failed)

    def state(self) -> str:
        return "succeeded" if self._succeeded else "failed"


def taken_by(nodes: Nodes, path: str, ends: Model, runs_again: Set[str]) -> set[str]:
    """Return the jobs whose results a fork takes, if they begin. ``runs_again``: the nodes that run again."""
    found: set[str] = set()
    for name, node in nodes.items():
        here = f"{path}/{name}"
        if name in runs_again or ends.states.get(here) is not NodeState.SUCCEEDED:
            continue
        nested = flow_in(node)
        found |= set(jobs_of(node, here)) if nested is None else taken_by(nested, here, ends, frozenset())
    return found


def after(nodes: Nodes, begin: str) -> set[str]:
    """Return the node and all that come after it, directly or not."""
    found = {begin}
    for name, node in nodes.items():  # in the order of the graph
        if found.intersection(node["after"]):
            found.add(name)
    return found
