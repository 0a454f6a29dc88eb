"""Checks a flow that was submitted against the job types, and makes of it what is recorded."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from jobtape.schemas.errors import PayloadInvalid, SubmissionInvalid, UnknownJobType, faults_of, first_fault
from jobtape.schemas.flows.flow import (
    FLOW,
    MAX_DEPTH,
    MAX_NODES,
    RecordedFlow,
    RecordedNode,
    RecordedSignal,
    payload_references,
)
from jobtape.schemas.flows.graph import Graph, Node
from jobtape.schemas.flows.references import FROM, INPUT, ITEM, Reference, step_into, steps_of
from jobtape.schemas.flows.submission import FlowBody, NodeBody
from jobtape.schemas.flows.type_check import type_faults
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX, JobTypeSpec
from jobtape.schemas.submission import Submission, read_submission

OrderOf = Callable[[Submission, bool], Order]
"""Returns the order of a node's job; the payload is checked if the second argument is true."""
_Fault = tuple[tuple[str | int, ...], str]
_MOST_FAULTS: Final = 20


def recorded_flow(
    payload: Mapping[str, Any], job_types: Mapping[str, JobTypeSpec], order_of: OrderOf, depth: int = 1
) -> RecordedFlow:
    """Return what is recorded of a flow. ``payload``: the fields of ``FlowBody``. ``depth``: 1 for the outermost flow.

    Raises PayloadInvalid with every fault. Payloads without references are checked as those of jobs are.
    """
    try:
        body = FlowBody.model_validate(payload)
    except ValidationError as error:
        raise _invalid([(tuple(fault["loc"]), fault["msg"]) for fault in faults_of(error)]) from None
    faults: list[_Fault] = []
    nodes: dict[str, RecordedNode] = {}
    shared = body.signals.keys() & body.nodes.keys()
    for name, node in body.nodes.items():
        try:
            nodes[name] = _Recorder(body.nodes, body.signals, body.input, name, node, job_types, order_of, depth).node()
        except _NodeInvalid as invalid:
            faults += invalid.faults
    faults += [(("signals", name), "a node has this name: give one of them another one") for name in shared]
    if not faults:
        signals = {name: Node() for name in body.signals}
        graph = Graph(signals | {name: Node(node.after, node.on) for name, node in nodes.items()})
        faults += [(("nodes", name, "after"), message) for name, message in graph.faults()]
        if not faults and (number := _count(nodes)) > MAX_NODES:
            faults.append((("nodes",), f"the flow has {number} nodes with those of the flows in it, not {MAX_NODES}"))
    if not faults:
        faults += type_faults(nodes, job_types)
    if faults:
        raise _invalid(faults)
    recorded = {name: RecordedSignal(timeout=signal.timeout) for name, signal in body.signals.items()}
    return RecordedFlow(name=body.name, input=body.input, nodes=nodes, stop=body.stop, signals=recorded)


def forked_flow(
    flow: RecordedFlow, begin: str, payload: Any, job_types: Mapping[str, JobTypeSpec], order_of: OrderOf
) -> RecordedFlow:
    """Return what is recorded of ``flow`` with another payload for the node ``begin``; with None it keeps its own.

    Raises PayloadInvalid with every fault, whose locations are those in the body of the request.
    """
    old = flow.nodes.get(begin)
    if old is None:
        raise _invalid([(("from",), f"there is no node {begin!r} in this flow")])
    if payload is None:
        return flow
    node = {"type": old.order.type, "payload": payload, "after": list(old.after), "map": old.map, "limit": old.limit}
    try:
        body = NodeBody.model_validate(node)
        new = _Recorder(flow.nodes, flow.signals, flow.input, begin, body, job_types, order_of, 1).node()
    except ValidationError as error:
        raise _invalid([(tuple(fault["loc"]), fault["msg"]) for fault in faults_of(error)]) from None
    except _NodeInvalid as invalid:
        raise _invalid([(loc[2:], message) for loc, message in invalid.faults]) from None
    order = {"payload": new.order.payload, "payload_version": new.order.payload_version}
    changed = old.model_copy(update={"order": old.order.model_copy(update=order), "after": new.after})
    found = RecordedFlow(
        name=flow.name, input=flow.input, nodes={**flow.nodes, begin: changed}, stop=flow.stop, signals=flow.signals
    )
    faults: list[_Fault] = [(("payload",), message) for _, message in found.graph.faults()]
    faults += [(loc[2:], why) for loc, why in type_faults(found.nodes, job_types) if loc[1] == begin]
    if faults:
        raise _invalid(faults)
    return found


def _count(nodes: Mapping[str, RecordedNode]) -> int:
    inner = (node.order.payload for node in nodes.values() if node.order.type == FLOW)
    return len(nodes) + sum(_count(RecordedFlow.model_validate(each).nodes) for each in inner)


class _NodeInvalid(Exception):
    def __init__(self, faults: Sequence[_Fault]) -> None:
        super().__init__()
        self.faults = faults


class _Recorder:
    """One node."""

    def __init__(
        self,
        nodes: Container[str],
        signals: Container[str],
        given: Mapping[str, Any],
        name: str,
        node: NodeBody,
        job_types: Mapping[str, JobTypeSpec],
        order_of: OrderOf,
        depth: int,
    ) -> None:
        self._nodes = nodes
        self._input = given
        self._depth = depth
        self._signals = signals
        self._labels = node.labels
        self._name = name
        self._node = node
        self._job_type = job_types.get(node.type)
        self._order_of = order_of

    def node(self) -> RecordedNode:
        """Return what is recorded. Raises _NodeInvalid."""
        node, job_type = self._node, self._job_type
        if node.type == FLOW and self._depth >= MAX_DEPTH:
            raise self._fault(("type",), f"flows may be {MAX_DEPTH} deep in each other")
        if node.type.startswith(BUILTIN_PREFIX) and node.type != FLOW:
            raise self._fault(("type",), "jobs of Jobtape itself cannot be nodes of a flow, except other flows")
        if node.limit is not None and node.map is None:
            raise self._fault(("limit",), "only a mapped node has a limit: give it `map`")
        found = self._references()
        order = self._order(whole=not found and (node.map is None or bool(node.payload)))
        if found and job_type is not None:
            faults = list(self._unfit_names(job_type))
            if faults:
                raise _NodeInvalid(faults)
        sources = [reference.node for reference in found if reference.node is not None]
        if node.map is not None and node.map.node is not None:
            sources.append(node.map.node)
        return RecordedNode(
            order=order.model_copy(update={"gates": None}),
            after=tuple(dict.fromkeys([*node.after, *sources])),
            on=node.on,
            map=None if node.map is None else node.map.reference.plain(),
            limit=node.limit,
            ordering_key=node.ordering_key,
            declared_gates=None if job_type is None else job_type.declared_gates.plain(),
            by_reference=() if job_type is None else tuple(job_type.results_parameters),
        )

    def _references(self) -> list[Reference]:
        try:
            found = list(payload_references(self._node.type, self._node.payload))
        except ValueError as error:
            message, at = error.args
            raise self._fault(("payload", *at), message) from None
        faults: list[_Fault] = []
        for at, reference in found:
            here = ("nodes", self._name, "payload", *at)
            if reference.of_input:
                if (fault := _missing_input(reference, self._input)) is not None:
                    faults.append((here, fault))
            elif reference.node is None and self._node.map is None:
                faults.append((here, "only a mapped node has items: give it `map`"))
            elif (
                reference.node is not None and reference.node not in self._nodes and reference.node not in self._signals
            ):
                faults.append((here, f"there is no node {reference.node!r} in this flow"))
        source = None if self._node.map is None else self._node.map.reference
        if source is not None and source.node is not None and source.node not in self._nodes:
            faults.append((("nodes", self._name, "map"), f"there is no node {source.node!r} in this flow"))
        elif source is not None and source.path and not source.path.startswith("/"):
            where = "$input" if source.of_input else "path"
            faults.append((("nodes", self._name, "map", where), "a path is a JSON Pointer: it begins with a slash"))
        elif source is not None and source.of_input and (fault := _missing_input(source, self._input)) is not None:
            faults.append((("nodes", self._name, "map", "$input"), fault))
        if faults:
            raise _NodeInvalid(faults)
        return [reference for _, reference in found]

    def _order(self, *, whole: bool) -> Order:
        node = self._node
        given = {"type": node.type, "payload": node.payload} | node.options()
        try:
            return self._order_of(read_submission(given, Submission), whole)
        except UnknownJobType as error:
            raise self._fault(("type",), str(error)) from None
        except PayloadInvalid as error:
            faults = error.errors or [{"loc": (), "msg": str(error)}]
            raise _NodeInvalid([(self._at("payload", *fault["loc"]), fault["msg"]) for fault in faults]) from None
        except SubmissionInvalid as error:
            raise _NodeInvalid([(self._at(*fault["loc"]), fault["msg"]) for fault in error.errors]) from None

    def _unfit_names(self, job_type: JobTypeSpec) -> Iterator[_Fault]:
        """Yield the faults that a payload with references has whatever the results are."""
        schema = job_type.json_schema()["payload"]
        known = schema.get("properties", {})
        if schema.get("additionalProperties") is False:
            for name in self._node.payload.keys() - known.keys():
                yield self._at("payload", name), f"the job type {job_type.name} has no such field"
        for name in schema.get("required", ()):
            if name not in self._node.payload:
                yield self._at("payload", name), f"the job type {job_type.name} requires this field"

    def _at(self, *loc: str | int) -> tuple[str | int, ...]:
        return ("nodes", self._name, *loc)

    def _fault(self, loc: tuple[str | int, ...], message: str) -> _NodeInvalid:
        return _NodeInvalid([(self._at(*loc), message)])


def _missing_input(reference: Reference, value: Any) -> str | None:
    """Return why there is nothing for a reference to the input ``value``; None if there is, or if it is not known."""
    for step in steps_of(reference.path):
        if isinstance(value, dict) and value.keys() & {FROM, ITEM, INPUT}:
            return None  # a reference of the outer flow
        try:
            value = step_into(value, step)
        except LookupError:
            return f"the input of the flow has nothing at {reference.path!r}"
    return None


def _invalid(faults: Sequence[_Fault]) -> PayloadInvalid:
    shown = [{"loc": loc, "msg": message} for loc, message in faults[:_MOST_FAULTS]]
    return PayloadInvalid(f"not a flow: {first_fault(shown, 'flow')}", shown)
