"""``POST /flows`` and ``GET /jobs/{id}/nodes``."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from jobtape.producer.http import openapi, request_body
from jobtape.producer.http.dependencies import JobId, RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse
from jobtape.producer.http.routes.jobs.jobs import find_job
from jobtape.producer.http.routes.jobs.submit import submitted
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.flows.graph import NodeState, On
from jobtape.schemas.flows.state import FlowState
from jobtape.schemas.flows.submission import FlowSubmission, flow_submission
from jobtape.schemas.job import Job
from jobtape.schemas.submission import Submission, read_submission
from jobtape.view.store import Store

_EXAMPLE: Final[dict[str, Any]] = {
    "nodes": {
        "list": {"type": "list", "payload": {"url": "https://example.com"}},
        "parse": {"type": "parse", "map": {"$from": "list", "path": "/items"}, "limit": 100},
        "store": {"type": "store", "payload": {"parts": {"$from": "parse"}}},
        "alert": {"type": "alert", "after": ["parse"], "on": "failure"},
    }
}

router = APIRouter(tags=["flows"])


class NodeOut(BaseModel):
    """A node of a flow."""

    name: str
    type: str = Field(description="The job type.")
    state: NodeState = Field(description="`waiting`, `running`; ended: `succeeded`, `failed`, `skipped`.")
    on: On
    after: list[str] = Field(description="The nodes that have to end first.")
    job: str | None = Field(description="The id of its job. Null before it begins, and for a mapped node.")
    mapped: bool = Field(description="Whether it has a job for each item of a list.")
    items: int | None = Field(description="Of a mapped node: the number of items, once that is known.")
    jobs: dict[str, int] = Field(description="The number of its jobs by state.")


class NodesOut(BaseModel):
    """The nodes of a flow, in the order of its submission."""

    items: list[NodeOut]


class NodesQuery(BaseModel, extra="forbid"):
    """The query parameters of ``GET /jobs/{id}/nodes``."""

    state: list[NodeState] = Field(default_factory=list, max_length=len(NodeState))


@router.post(
    "/flows",
    status_code=202,
    response_model=JobOut,
    summary="Submit a flow",
    response_description="The flow is accepted. It is a job of the type `jobtape.flow`.",
    responses={
        200: {"model": JobOut, "description": "Only with `Prefer: wait`: the flow has ended."},
        **openapi.problems(400, 401, 408, 409, 413, 415, 422, 503),
    },
    openapi_extra=openapi.body(FlowSubmission, example=_EXAMPLE)
    | openapi.headers(openapi.IDEMPOTENCY_KEY, openapi.PREFER),
    dependencies=[Depends(no_query)],
)
async def submit_flow(request: Request, producer: RunningProducer) -> Response:
    """The jobs of the nodes begin when the nodes that they come after have ended. `GET /jobs/{id}/nodes` shows them.
    The request can be repeated and waited for as that of a job.
    """
    try:
        return await submitted(request, producer, _read)
    except PayloadInvalid as error:
        raise Problem(
            "invalid-flow", str(error), errors=[(pointer(fault["loc"]), fault["msg"]) for fault in error.errors]
        ) from None


@router.get(
    "/jobs/{job_id}/nodes",
    response_model=NodesOut,
    summary="List the nodes of a flow",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
)
async def list_nodes(job_id: JobId, query: Annotated[NodesQuery, Query()], producer: RunningProducer) -> Response:
    """Each node with its state and the number of its jobs. `GET /jobs?flow=` lists the jobs themselves."""
    job = await find_job(producer, job_id)
    if job.gates is None or not job.gates.flow:
        raise Problem("not-a-flow", f"the job {job_id} is no flow: it has no nodes")
    nodes = await producer.read(_nodes, producer.store, job)
    return PydanticJSONResponse({"items": [each for each in nodes if not query.state or each["state"] in query.state]})


def _read(body: bytes) -> Submission:
    value = request_body.parse_json(body)
    return read_submission(flow_submission(value) if isinstance(value, Mapping) else value, Submission)


def _nodes(store: Store, job: Job) -> list[dict[str, Any]]:
    try:
        flow = FlowState(job, store.flows.jobs(job.id))
    except ValidationError:
        raise Problem("not-a-flow", f"the flow {job.id} was submitted by a later version") from None
    store.flows.count_items(flow)
    states = flow.states(ended=job.final)
    return [
        {
            "name": name,
            "type": node.order.type,
            "state": states[name],
            "on": node.on,
            "after": node.after,
            "job": None if (own := flow.job_of(name, None)) is None else own.id,
            "mapped": node.map is not None,
            "items": flow.items.get(name),
            "jobs": flow.states_of(name),
        }
        for name, node in flow.recorded.nodes.items()
    ]
