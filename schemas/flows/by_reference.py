"""Which results a node's job can get by reference instead of in its payload."""

from typing import Any

from jobtape.schemas.execution.results import ResultsReference
from jobtape.schemas.flows.flow import RecordedFlow, RecordedNode
from jobtape.schemas.flows.references import Reference, reference_of
from jobtape.schemas.flows.state import FlowState


def referable(flow: RecordedFlow, node: RecordedNode) -> dict[str, list[Reference]]:
    """Return the fields of the node's payload that may be handed on by reference, with what they refer to: all results
    of one mapped node, or a list of results of other nodes. Their parameters are annotated ``Results``.
    """
    found: dict[str, list[Reference]] = {}
    for name in node.by_reference:
        value = node.order.payload.get(name)
        if (single := reference_of(value)) is not None:
            if single.node in flow.nodes and flow.nodes[single.node].map is not None and not single.path:
                found[name] = [single]
            continue
        references = [reference_of(each) for each in value] if isinstance(value, list) else []
        several = [each for each in references if each is not None and _is_of_one_job(flow, each)]
        names = {each.node for each in several}
        # The API returns one result for each name.
        if several and len(several) == len(references) == len(names):
            found[name] = several
    return found


def referring(flow: FlowState, references: list[Reference]) -> dict[str, Any]:
    """Return what stands in the payload for results as they are now. Their nodes have ended."""
    names = [each.node or "" for each in references]
    mapped = flow.recorded.nodes[names[0]].map is not None
    count = flow.number_of_items(names[0]) if mapped else len(names)
    nodes = tuple((each.node or "", each.path) for each in references)
    return ResultsReference(nodes, max(flow.last_cursor(name) for name in names), count).plain()


def _is_of_one_job(flow: RecordedFlow, reference: Reference) -> bool:
    return reference.node in flow.nodes and flow.nodes[reference.node].map is None
