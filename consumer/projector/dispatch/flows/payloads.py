"""Makes the payloads of nodes' jobs: puts the results of earlier nodes in the place of the references."""

from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas import plainjson
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.flows.by_reference import referable, referring
from jobtape.schemas.flows.flow import FLOW, MAX_ITEMS, RecordedNode
from jobtape.schemas.flows.follow_ups import CONTINUATION
from jobtape.schemas.flows.references import NotFound, Reference, resolved
from jobtape.schemas.flows.state import FlowState
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.declared_gates import DeclaredGates
from jobtape.schemas.queueing.gates import Gates
from jobtape.view.jobs.flows import result_of

_TOO_LARGE: Final = (
    "the results of the node {} have {} bytes, a payload may have {} (JOBTAPE_MAX_PAYLOAD): annotate the parameter "
    "with Results[...], which gets them by reference"
)


class _Large(NamedTuple):
    """Stands for results that are not read, because they do not fit into a payload."""

    size: int


class PayloadFault(Exception):
    """There is no payload for a node's job. The text says why."""


class Payloads:
    """``most``: bytes of JSON that a payload may have."""

    def __init__(self, active: ActiveProjector, most: int) -> None:
        self._active = active
        self._most = most

    async def items(self, flow: FlowState, node: RecordedNode) -> list[Any]:
        """Return the items of a mapped node. Raises PayloadFault and ViewUnavailable."""
        reference = node.items
        assert reference is not None
        try:
            items = reference.value_in(
                flow.recorded.input if reference.of_input else await self._result(flow, reference.node or "")
            )
        except NotFound as fault:
            raise PayloadFault(str(fault)) from None
        where = f"{reference.source} at {reference.path!r}"
        if not isinstance(items, list):
            raise PayloadFault(f"{where} is not a list, so it has no items to map")
        if len(items) > MAX_ITEMS:
            raise PayloadFault(f"{where} has {len(items)} items; a node may be mapped over {MAX_ITEMS}")
        return items

    async def results(self, flow: FlowState, node: RecordedNode) -> dict[str, Any]:
        """Return the results of all nodes that the payload refers to, without those that are handed on by reference
        because they do not fit. Raises PayloadFault and ViewUnavailable.
        """
        found: dict[str, Any] = {}
        fields = referable(flow.recorded, node)
        inline = {each.node for at, each in node.references() if at[0] not in fields}
        room = self._most
        for _, reference in node.references():
            name = reference.node
            if name is None or name in found:
                continue
            if name in inline:
                found[name] = await self._result(flow, name)
                continue
            result = await self._result(flow, name, room)
            size = len(plainjson.dumps(result)) if not isinstance(result, _Large) else room + 1
            found[name] = _Large(size) if size > room else result
            room -= min(size, room)
        return found

    def make(
        self, flow: FlowState, node: RecordedNode, results: dict[str, Any], item: Any = None
    ) -> tuple[dict[str, Any], Gates]:
        """Return payload and gates of a node's job. Raises PayloadFault."""

        def look_up(reference: Reference) -> Any:
            if reference.node is None:
                return reference.value_in(flow.recorded.input if reference.of_input else item)
            value = results[reference.node]
            # Nothing is to be found in a node that has no result.
            return None if value is None else reference.value_in(value)

        fields = referable(flow.recorded, node)
        large = {
            name for name, of in fields.items() if any(isinstance(results[each.node or ""], _Large) for each in of)
        }
        payload = self._payload(flow, node, look_up, item, {name: fields[name] for name in large})
        if len(large) < len(fields) and len(plainjson.dumps(payload)) > self._most:
            payload = self._payload(flow, node, look_up, item, fields)
        if not isinstance(payload, dict):
            raise PayloadFault("an item that is no JSON object is no payload: give the node a payload with $item in it")
        if (reason := plainjson.fault(payload)) is not None:
            raise PayloadFault(f"the payload cannot be stored as JSON without change: {reason}")
        if (size := len(plainjson.dumps(payload))) > self._most:
            raise PayloadFault(f"the payload has {size} bytes, {self._most} are allowed (JOBTAPE_MAX_PAYLOAD)")
        return payload, self.gates(flow, node, payload)

    @staticmethod
    def _payload(
        flow: FlowState,
        node: RecordedNode,
        look_up: Callable[[Reference], Any],
        item: Any,
        by_reference: dict[str, list[Reference]],
    ) -> Any:
        """Return the payload with the results in it, except those of the fields ``by_reference``."""
        try:
            if node.map is not None and not node.order.payload:
                return item
            if not by_reference:
                return node.payload(look_up)
            inline = {name: value for name, value in node.order.payload.items() if name not in by_reference}
            return resolved(inline, look_up) | {name: referring(flow, of) for name, of in by_reference.items()}
        except NotFound as fault:
            raise PayloadFault(str(fault)) from None

    def gates(self, flow: FlowState, node: RecordedNode, payload: dict[str, Any]) -> Gates:
        """Return the gates of a node's job; ``flow.kept_gates`` has to be known. Raises PayloadFault."""
        if node.order.type == FLOW:
            return Gates(flow=True)
        labels = {**(flow.job.labels or {}), **node.order.labels}
        try:
            declared = DeclaredGates.read(node.order.type, node.declared_gates)
            gates = declared.gates(payload, labels, node.ordering_key) or Gates()
        except PayloadInvalid as error:
            raise PayloadFault(str(error)) from None
        kept = flow.kept_gates
        assert kept is not None
        if gates.ordering_key is not None and ("", gates.ordering_key) in kept:
            raise PayloadFault(
                f"it has the ordering key {gates.ordering_key!r} of a job that it follows, which keeps the key until "
                "its follow-ups have ended: give it another key"
            )
        if gates.unique is not None and gates.unique.conflict == "replace" and gates.unique.gate in kept:
            raise PayloadFault(
                f"it has the unique key {gates.unique.key!r} of a job that it follows, and would wait for the end of "
                "that job (conflict='replace'): give it another key"
            )
        return gates

    async def continuation(self, flow: FlowState) -> Job | None:
        """Return the follow-up whose outcome becomes that of ``flow.job``; None if it was not begun.

        Raises ViewUnavailable.
        """
        known = flow.job_of(CONTINUATION, None)
        if known is None:
            return None
        return (await self._active.call(self._active.store.jobs, [known.id])).get(known.id)

    async def taken(self, flow: FlowState, name: str) -> dict[int | None, str]:
        """Return the ids of the jobs whose results the node takes from the flow that was forked, by item.

        Raises PayloadFault if they are not kept any more, and ViewUnavailable.
        """
        fork = flow.recorded.fork
        if fork is None or name not in fork.taken:
            return {}
        found = await self._active.call(self._active.store.flows.succeeded_then, fork.flow, fork.as_of, name)
        if len(found) != fork.taken[name]:
            raise self.not_kept(flow, name)
        return {job.item: job.id for job in found}

    async def taken_jobs(self, flow: FlowState, job_ids: Collection[str]) -> dict[str, Job]:
        """Return those of the jobs that ``taken`` has named that are still kept, as they were then. They may be large,
        so ask for few at once. Raises ViewUnavailable.
        """
        fork = flow.recorded.fork
        if fork is None or not job_ids:
            return {}
        return await self._active.call(self._active.store.flows.jobs_then, job_ids, fork.as_of)

    @staticmethod
    def not_kept(flow: FlowState, name: str) -> PayloadFault:
        """Return the fault of a node whose results in the flow that was forked have been removed."""
        forked = "" if flow.recorded.fork is None else flow.recorded.fork.flow
        return PayloadFault(
            f"the results of the node {name} in the flow {forked} are not kept any more (JOBTAPE_JOB_RETENTION): "
            "submit a new flow"
        )

    async def last_results(self, flow: FlowState) -> dict[str, Any]:
        """Return the results of the last nodes that have one, without mapped nodes, as far as there is room for them.

        Raises ViewUnavailable.
        """
        found: dict[str, Any] = {}
        room = self._most
        last = {name: flow.job_of(name, None) for name in flow.recorded.graph.last if name in flow.recorded.nodes}
        known = [job.id for job in last.values() if job is not None and job.state is JobState.SUCCEEDED]
        jobs = await self._active.call(self._active.store.jobs, known)
        for name, job in last.items():
            if job is not None and job.id in jobs:
                size = len(plainjson.dumps({name: jobs[job.id].result}))
                if size < room:
                    room -= size
                    found[name] = jobs[job.id].result
        return found

    async def _result(self, flow: FlowState, name: str, room: int | None = None) -> Any:
        """Return the result of a node, None if it has not succeeded; of a mapped one the list of its results, None if
        it had no items to map. ``room``: bytes that it may have; if it has more, return _Large.
        """
        if name in flow.recorded.signals:
            return (flow.job.signals or {}).get(name, {}).get("payload")
        if flow.is_follow_ups:
            own = flow.job_of(name, None)
            jobs = {} if own is None else await self._active.call(self._active.store.jobs, [own.id])
            return next((job.result for job in jobs.values() if job.state is JobState.SUCCEEDED), None)
        # A single result may be larger than a payload: mostly only a part of it is needed.
        mapped = flow.recorded.nodes[name].map is not None
        most = (self._most if mapped else 2**62) if room is None else room
        found = await self._active.call(self._active.store.flows.results, flow.job.id, name, most)
        if isinstance(found, int):
            if room is not None:
                return _Large(found)
            raise PayloadFault(_TOO_LARGE.format(name, found, self._most))
        if mapped and name not in flow.items:
            return None
        return result_of(found, mapped=mapped)
