"""The rules of flows: examples, and any graph against a reference that decides from the definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.flows.graph import Decision, Graph, Node, NodeState, On, Stop

_S = NodeState
ENDS = {True: _S.SUCCEEDED, False: _S.FAILED}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Node]:
    """Any graph of up to eight nodes, whose names are in no order."""
    number = draw(st.integers(1, 8))
    names = draw(st.permutations([f"n{i}" for i in range(number)]))
    nodes: dict[str, Node] = {}
    for i, name in enumerate(names):
        after = tuple(draw(st.lists(st.sampled_from(names[:i]), max_size=3, unique=True))) if i else ()
        ons: list[On] = ["success", "done", "failure"] if after else ["success", "done"]
        nodes[name] = Node(after, draw(st.sampled_from(ons)))
    return {name: nodes[name] for name in draw(st.permutations(names))}


class Reference:
    """The ends of all nodes, by recursion from the definitions. ``good``: the nodes whose jobs would succeed."""

    def __init__(self, nodes: dict[str, Node], good: set[str]) -> None:
        self._nodes = nodes
        self._good = good

    def end(self, name: str) -> NodeState:
        node = self._nodes[name]
        begins = {
            "success": all(self.end(other) is _S.SUCCEEDED for other in node.after),
            "failure": self.failure_before(name),
            "done": True,
        }
        return ENDS[name in self._good] if begins[node.on] else _S.SKIPPED

    def failure_before(self, name: str) -> bool:
        return any(
            self.end(other) is _S.FAILED or (self.end(other) is _S.SKIPPED and self.failure_before(other))
            for other in self._nodes[name].after
        )

    def is_handled(self, name: str) -> bool:
        """Whether a node that began because of this failure, or in spite of it, is reached through skipped ones."""
        return any(
            node.on != "success" or self.is_handled(other) for other, node in self._nodes.items() if name in node.after
        )


def play(graph: Graph, good: set[str], data: st.DataObject) -> tuple[Decision, list[str]]:
    """Let the jobs of the nodes end in any order, and return the last decision and the nodes as they began."""
    outcomes: dict[str, NodeState] = {}
    began: list[str] = []
    while True:
        decision = graph.decide(outcomes)
        for name in decision.ready:
            assert decision.states[name] is _S.WAITING
            assert all(
                decision.states[other] in (_S.SUCCEEDED, _S.FAILED, _S.SKIPPED) for other in graph.nodes[name].after
            )
            outcomes[name] = _S.RUNNING
            began.append(name)
        running = sorted(name for name, outcome in outcomes.items() if outcome is _S.RUNNING)
        if not running:
            return decision, began
        assert not decision.ended
        ending = data.draw(st.sampled_from(running))
        outcomes[ending] = ENDS[ending in good]


@given(graphs(), st.data())
def test_any_flow_ends_as_the_definitions_say(nodes: dict[str, Node], data: st.DataObject) -> None:
    good = data.draw(st.sets(st.sampled_from(sorted(nodes))))
    decision, began = play(Graph(nodes), good, data)
    reference = Reference(nodes, good)
    assert decision.ended
    assert decision.states == {name: reference.end(name) for name in nodes}
    assert len(began) == len(set(began))
    assert set(began) == {name for name in nodes if reference.end(name) is not _S.SKIPPED}
    failed = {name for name in nodes if reference.end(name) is _S.FAILED}
    assert set(decision.unhandled) == {name for name in failed if not reference.is_handled(name)}


@given(graphs(), st.data())
def test_nothing_begins_after_a_failure_that_stops_the_flow(nodes: dict[str, Node], data: st.DataObject) -> None:
    good = data.draw(st.sets(st.sampled_from(sorted(nodes))))
    graph, reference = Graph(nodes, "now"), Reference(nodes, good)
    outcomes: dict[str, NodeState] = {}
    while True:
        decision = graph.decide(outcomes)
        bad = [name for name, outcome in outcomes.items() if outcome is _S.FAILED and not reference.is_handled(name)]
        assert decision.stopped is bool(bad)
        assert not (bad and decision.ready)
        outcomes |= dict.fromkeys(decision.ready, _S.RUNNING)
        running = sorted(name for name, outcome in outcomes.items() if outcome is _S.RUNNING)
        if not running:
            break
        ending = data.draw(st.sampled_from(running))
        outcomes[ending] = ENDS[ending in good]
    assert decision.ended
    assert set(decision.unhandled) == set(bad)


@given(graphs(), st.data())
def test_decision_depends_on_the_outcomes_only(nodes: dict[str, Node], data: st.DataObject) -> None:
    """Whoever decides again, in whatever order the nodes are named, decides the same."""
    outcomes: dict[str, NodeState] = data.draw(
        st.dictionaries(st.sampled_from(sorted(nodes)), st.sampled_from([_S.RUNNING, _S.SUCCEEDED, _S.FAILED]))
    )
    first = Graph(nodes).decide(outcomes)
    again = Graph(dict(reversed(nodes.items()))).decide(outcomes)
    assert (first.states, set(first.ready)) == (again.states, set(again.ready))


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ({"a": Node(("b",))}, "a"),
        ({"a": Node((), "failure")}, "a"),
        ({"a": Node(("a",))}, "a"),
        ({"a": Node(("c",)), "b": Node(("a",)), "c": Node(("b",)), "d": Node()}, "a"),
    ],
)
def test_fault_names_the_node(nodes: dict[str, Node], named: str) -> None:
    assert named in [name for name, _ in Graph(nodes).faults()]


@given(graphs())
def test_graph_without_circle_has_no_fault(nodes: dict[str, Node]) -> None:
    assert not list(Graph(nodes).faults())


@pytest.mark.parametrize("stop", ["end", "now"])
def test_chain_of_a_thousand_nodes_is_decided(stop: Stop) -> None:
    """Without recursion."""
    nodes = {f"n{i}": Node((f"n{i - 1}",) if i else ()) for i in range(1000)}
    decision = Graph(nodes, stop).decide({"n0": _S.FAILED})
    assert decision.ended and decision.unhandled == ["n0"]
