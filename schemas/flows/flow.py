"""A flow as it is recorded: the payload of its job, and the orders of its nodes' jobs."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from jobtape.schemas import ids
from jobtape.schemas.flows.graph import Graph, Node, On, Stop
from jobtape.schemas.flows.references import Location, Reference, reference_of, references, resolved
from jobtape.schemas.job import FlowNode, Job, Order, Utc

FLOW: Final = "jobtape.flow"
"""The job type of flows."""
MAX_NODES: Final = 1000
"""Of a flow with those of the flows in it."""
MAX_DEPTH: Final = 8
"""Flows in each other, with the outermost one."""
MAX_ITEMS: Final = 100_000
"""Jobs of a mapped node."""

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]


INPUT_FIELD: Final = "input"
"""The only part of a flow within a flow in which references are those of the outer one."""


class RecordedNode(BaseModel):
    """A node. The payload of ``order`` may have references. ``after``: also the nodes that it refers to. ``map``: a
    reference to a list, for each item of which the node has a job; at most ``limit`` of them are open at once.
    ``ordering_key`` and ``declared_gates``: what the gates of its jobs follow from. ``by_reference``: the fields of the
    payload that are annotated ``Results``.
    """

    model_config = ConfigDict(frozen=True)

    order: Order
    after: tuple[NodeName, ...] = ()
    on: On = "success"
    map: dict[str, str] | None = None
    limit: int | None = Field(default=None, ge=1)
    ordering_key: str | None = None
    declared_gates: dict[str, Any] | None = None
    by_reference: tuple[str, ...] = ()

    @property
    def items(self) -> Reference | None:
        """Where the items of a mapped node are; None for another node."""
        return reference_of(self.map)

    def references(self) -> Iterator[tuple[Location, Reference]]:
        """Yield the references in the payload as ``references.references`` does."""
        return payload_references(self.order.type, self.order.payload)

    def payload(self, look_up: Callable[[Reference], Any]) -> Any:
        """Return the payload with what ``look_up`` returns in the place of each reference."""
        payload = self.order.payload
        if self.order.type != FLOW:
            return resolved(payload, look_up)
        return {**payload, INPUT_FIELD: resolved(payload[INPUT_FIELD], look_up)} if INPUT_FIELD in payload else payload


class Fork(BaseModel):
    """What a flow takes from another one, as it was ``as_of`` a cursor. ``begin``: the node from which on it runs
    again; None if it takes everything. ``taken``: by node, how many jobs had succeeded whose results it takes.
    ``signals``: those that had come, or whose time was over.
    """

    model_config = ConfigDict(frozen=True)

    flow: str
    as_of: int
    begin: NodeName | None = None
    taken: dict[NodeName, int]
    signals: tuple[NodeName, ...] = ()


class RecordedSignal(BaseModel):
    """A signal that nodes come after. ``timeout``: seconds after ``since`` in which it may come; ``since`` None means
    the beginning of the flow.
    """

    model_config = ConfigDict(frozen=True)

    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    since: Utc | None = None

    def ends_at(self, began: datetime | None) -> datetime | None:
        """Return when its time is over; None if it has none. ``began``: when the flow began."""
        since = self.since or began
        return None if self.timeout is None or since is None else since + timedelta(seconds=self.timeout)


class RecordedFlow(BaseModel):
    """The payload of a flow's job, and what a job records that has follow-ups."""

    # Not frozen: the graph is computed once.
    model_config = ConfigDict(ignored_types=(cached_property,))

    name: str | None = None
    input: dict[str, Any] = Field(default_factory=dict)
    nodes: dict[NodeName, RecordedNode] = Field(min_length=1, max_length=MAX_NODES)
    stop: Stop = "end"
    fork: Fork | None = None
    signals: dict[NodeName, RecordedSignal] = Field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """The nodes without their orders. Signals are nodes too."""
        nodes = {name: Node() for name in self.signals}
        return Graph(nodes | {name: Node(node.after, node.on) for name, node in self.nodes.items()}, self.stop)


def payload_references(job_type: str, payload: dict[str, Any]) -> Iterator[tuple[Location, Reference]]:
    """Yield the references to what is in the flow of a node with this payload. Raises what ``references`` raises."""
    if job_type != FLOW:
        return references(payload)
    return references(payload.get(INPUT_FIELD), (INPUT_FIELD,))


def recorded_flow_of(job: Job) -> RecordedFlow:
    """Return the flow that ``job`` is, or its follow-ups. Raises ValidationError for one of a later version."""
    return RecordedFlow.model_validate(job.payload if job.follow_ups is None else job.follow_ups)


def child_id(flow: Job, node: str, item: int | None) -> str:
    """Return the id of a node's job: a UUIDv7 of the flow's time, the same whoever submits it.

    Each run of a job has follow-ups of its own. Of a flow, all runs have the same jobs.
    """
    return _id_of(flow.id, node if flow.follow_ups is None else f"{flow.run}/{node}", item, version=7)


def follow_up_id(job_id: str, run: int, node: str) -> str:
    """Return the id of a follow-up of a run of a job."""
    return _id_of(job_id, f"{run}/{node}", None, version=7)


def waits_for(above: Job, job: Job) -> bool:
    """Return whether the flow or job ``above`` ends only after ``job``: not if its handler has spawned that."""
    if above.follow_ups is None:
        return above.gates is not None and above.gates.flow
    return job.id == follow_up_id(above.id, above.run, job.node or "")


def spawned_id(job_id: str, run: int, key: str) -> str:
    """Return the id of a job that a handler spawns: a UUIDv8 with the time of the handler's job.

    Not a UUIDv7, because such an id says that its job was submitted at that time.
    """
    return _id_of(job_id, f"{run}/spawn/{key}", None, version=8)


def _id_of(flow_id: str, node: str, item: int | None, *, version: int) -> str:
    text = f"{flow_id} {node}" if item is None else f"{flow_id} {node} {item}"
    return ids.derived_id(text, flow_id, version)


def child_order(flow: Job, name: str, node: RecordedNode, item: int | None, payload: dict[str, Any]) -> Order:
    """Return the order of a node's job, without gates. It has the flow's labels too."""
    return node.order.model_copy(
        update={
            "payload": payload,
            "labels": {**(flow.labels or {}), **node.order.labels},
            "correlation_id": flow.correlation_id,
            "flow": FlowNode(id=flow.id, node=name, item=item, depth=flow.depth + 1),
        }
    )
