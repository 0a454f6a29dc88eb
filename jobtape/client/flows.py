"""The nodes of a flow, as the API returns them."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError

from jobtape.client.errors import WrongAddress
from jobtape.client.http.answers import Answer
from jobtape.schemas.errors import faults_of, first_fault
from jobtape.schemas.flows.graph import NodeState, On
from jobtape.schemas.job import JobState


class NodeInfo(BaseModel):
    """A node of a flow. ``job``: the id of its job; None before it begins, and for a mapped node. ``items``: of a
    mapped node, the number of items, once that is known. ``jobs``: the number of its jobs by state.
    """

    name: str
    type: str
    state: NodeState
    on: On
    after: Sequence[str]
    job: str | None
    mapped: bool
    items: int | None
    jobs: Mapping[JobState, int]


def nodes_of(answer: Answer) -> list[NodeInfo]:
    """Read nodes from an answer. Raises WrongAddress when they are none."""
    try:
        return [NodeInfo.model_validate(each) for each in answer.content["items"]]
    except ValidationError as error:
        raise WrongAddress(
            f"the API returned nodes that this client cannot read ({first_fault(faults_of(error))}): install the API's "
            "version of Jobtape here"
        ) from None
