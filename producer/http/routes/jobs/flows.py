"""``POST /flows``, ``GET /jobs/{id}/nodes`` and ``POST /jobs/{id}/fork``."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from jobtape.producer.http import openapi, request_body
from jobtape.producer.http.access import caller_of, idempotency_scope
from jobtape.producer.http.dependencies import JobId, RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.query_parameters import Point
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse
from jobtape.producer.http.routes.jobs.jobs import AS_OF, find_job, past_job
from jobtape.producer.http.routes.jobs.submit import answer_for, submit_and_answer
from jobtape.producer.service.flow_forks import fork_order
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.submission.idempotency import HEADER, KeyedOrder, key_in_header
from jobtape.schemas.errors import PayloadInvalid, faults_of
from jobtape.schemas.flows.flow import FLOW, NodeName
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
    type: str = Field(description="The job type; `signal` for a signal that nodes come after.")
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
    as_of: Point | None = None


class ForkBody(BaseModel, extra="forbid", strict=True):
    """The body of ``POST /jobs/{id}/fork``."""

    begin: NodeName = Field(alias="from", description="The node from which on the new flow runs again.")
    payload: dict[str, Any] | None = Field(
        None, description="The payload of that node, with references as in `POST /flows`. Without it: as before."
    )


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
        return await submit_and_answer(request, producer, _read)
    except PayloadInvalid as error:
        raise _invalid(error) from None


@router.get(
    "/jobs/{job_id}/nodes",
    response_model=NodesOut,
    summary="List the nodes of a flow",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
)
async def list_nodes(
    job_id: JobId, query: Annotated[NodesQuery, Query()], request: Request, producer: RunningProducer
) -> Response:
    """Each node of a flow, or each follow-up of a job, with its state and the number of its jobs. `GET /jobs?flow=`
    lists the jobs themselves. With `as_of` the nodes are returned as they were then.
    """
    headers: dict[str, str] = {}
    cursor: int | None = None
    if query.as_of is None:
        job = await find_job(producer, job_id)
    else:
        job, cursor = await past_job(producer, job_id, query.as_of)
        headers[AS_OF] = str(cursor)
    if job.follow_ups is None:
        _check_flow(job)
    nodes = await producer.read(_nodes, producer.store, job, cursor)
    types = caller_of(request).types  # a job can have follow-ups of other types
    found = [
        each
        for each in nodes
        if (not query.state or each["state"] in query.state) and (not types or each["type"] in {*types, "signal", FLOW})
    ]
    return PydanticJSONResponse({"items": found}, headers=headers)


@router.post(
    "/jobs/{job_id}/fork",
    status_code=202,
    response_model=JobOut,
    summary="Fork a flow",
    response_description="The new flow is accepted.",
    responses={
        200: {"model": JobOut, "description": "Only with `Prefer: wait`: the flow has ended."},
        **openapi.problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 503),
    },
    openapi_extra=openapi.body(ForkBody, example={"from": "parse", "payload": {"link": {"$item": "/href"}}})
    | openapi.headers(openapi.IDEMPOTENCY_KEY, openapi.PREFER),
    dependencies=[Depends(no_query)],
)
async def fork_flow(job_id: JobId, request: Request, producer: RunningProducer) -> Response:
    """A new flow with the same nodes runs again from one node on. It takes the results of the jobs that have succeeded
    before that node, or beside it; their jobs succeed in the new flow without being run. The flow that is forked is
    not changed, and may still be running.
    """
    request_body.media_type(request, request_body.JSON)
    key = key_in_header(request.headers.getlist(HEADER))
    body = await request_body.read_body(request, producer.limits.max_body)
    job = await find_job(producer, job_id)
    _check_flow(job)
    try:
        fork = ForkBody.model_validate(request_body.parse_json(body))
        order = await fork_order(producer, job, fork.begin, fork.payload)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"]) for fault in faults_of(error)]
        raise Problem("invalid-flow", "not a fork of a flow", errors=faults) from None
    except PayloadInvalid as error:
        raise _invalid(error) from None
    if key is None:
        new = await producer.submit_order(order)
    else:
        asked = Submission(type=FLOW, payload={"fork": job_id, **fork.model_dump(mode="json")})
        new = await producer.submit_once(idempotency_scope(request), KeyedOrder.of(key, asked, order, utc_now()))
    return await answer_for(request, producer, new, new=key is None)


def _check_flow(job: Job) -> None:
    if job.gates is None or not job.gates.flow:
        raise Problem("not-a-flow", f"the job {job.id} is no flow: it has no nodes")


def _invalid(error: PayloadInvalid) -> Problem:
    return Problem("invalid-flow", str(error), errors=[(pointer(fault["loc"]), fault["msg"]) for fault in error.errors])


def _read(body: bytes) -> Submission:
    value = request_body.parse_json(body)
    return read_submission(flow_submission(value) if isinstance(value, Mapping) else value, Submission)


def _nodes(store: Store, job: Job, cursor: int | None) -> list[dict[str, Any]]:
    """Return the nodes of a flow now, or as they were at ``cursor``."""
    try:
        jobs = store.flows.jobs(job.id) if cursor is None else store.past.flow_jobs(job.id, cursor)
        flow = FlowState(job, jobs)
    except ValidationError:
        raise Problem("not-a-flow", f"the flow {job.id} was submitted by a later version") from None
    store.flows.count_items(flow, cursor)
    states = flow.states(ended=job.final)
    signals = [
        _signal(name, NodeState.WAITING if states[name] is NodeState.RUNNING else states[name])
        for name in flow.recorded.signals
    ]
    return signals + [
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


def _signal(name: str, state: NodeState) -> dict[str, Any]:
    unset: dict[str, Any] = {"after": [], "job": None, "mapped": False, "items": None, "jobs": {}}
    return {"name": name, "type": "signal", "state": state, "on": "success", **unset}
