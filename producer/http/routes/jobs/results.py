"""``GET /jobs/{id}/results``."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import JobId, RunningProducer
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import Point
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.producer.http.routes.jobs.jobs import AS_OF, find_job, past_job
from jobtape.schemas.access import Forbidden
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.flows.flow import MAX_ITEMS, RecordedFlow, child_id, recorded_flow_of
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import Store

MAX_PAGE: Final = 1000

router = APIRouter(tags=["flows"])


class ResultsQuery(BaseModel, extra="forbid"):
    """The query parameters of ``GET /jobs/{id}/results``."""

    nodes: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_.\-]{1,64}(,[A-Za-z0-9_.\-]{1,64}){0,99}$",
            description="The name of a mapped node, or up to 100 names of other nodes, separated by commas.",
        ),
    ]
    after: int = Field(0, ge=0, le=MAX_ITEMS, description="How many results to leave out: `next` of the page before.")
    limit: int = Field(500, ge=1, le=MAX_PAGE)
    as_of: Point | None = None


class NodeResult(BaseModel):
    """The result of one job of a flow."""

    node: str
    item: int | None = Field(description="Of a mapped node: the number of the item.")
    job: str | None = Field(description="The id of the job. Null before it begins.")
    state: JobState | None
    result: Any = Field(description="Null unless the job has succeeded.")


class ResultsPage(BaseModel):
    """Results in the order of the items, or of the nodes in the query."""

    items: list[NodeResult]
    next: int | None = Field(description="`after` of the next page; null if this is the last one.")


@router.get(
    "/jobs/{job_id}/results",
    response_model=ResultsPage,
    summary="List the results of nodes",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
)
async def list_results(
    job_id: JobId, query: Annotated[ResultsQuery, Query()], producer: RunningProducer, request: Request
) -> Response:
    """The results of a mapped node of a flow, one for each item, or those of several nodes; also of the follow-ups of a
    job. A page has at most 4 MiB of results, or one. With `as_of` they are returned as they were then.
    """
    headers: dict[str, str] = {}
    cursor = MAX_CURSOR
    if query.as_of is None:
        job = await find_job(producer, job_id)
    else:
        job, cursor = await past_job(producer, job_id, query.as_of)
        headers[AS_OF] = str(cursor)
    try:
        flow = recorded_flow_of(job)
    except ValidationError:
        raise Problem("not-a-flow", f"the job {job_id} is no flow and has no follow-ups") from None
    caller = caller_of(request)
    for name in query.nodes.split(","):
        # A job may have follow-ups of other types.
        order = flow.nodes[name].order if name in flow.nodes else None
        if order is not None and not caller.sees_order(order.type, order.payload):
            raise Forbidden(
                f"the node {name} is of the type {order.type}: use an API key that is not limited to others"
            )
    page = await producer.read(_page, producer.store, job, flow, query, cursor)
    return PydanticJSONResponse(page, headers=headers)


def _page(store: Store, job: Job, flow: RecordedFlow, query: ResultsQuery, cursor: int) -> dict[str, Any]:
    names = query.nodes.split(",")
    if unknown := [name for name in names if name not in flow.nodes]:
        message = f"there is no node {unknown[0]!r} in {job.id}: GET /jobs/{job.id}/nodes lists them"
        raise Problem("invalid-query", message, errors=[("nodes", message)])
    mapped = any(flow.nodes[name].map is not None for name in names)
    if mapped and len(names) > 1:
        message = "one of several nodes is mapped: ask for it alone"
        raise Problem("invalid-query", message, errors=[("nodes", message)])
    places: list[tuple[str, int | None]]
    if mapped:
        places = [(names[0], item) for item in range(query.after, query.after + query.limit)]
    else:
        places = [(name, None) for name in names[query.after : query.after + query.limit]]
    if not places:
        return {"items": [], "next": None}
    found = store.flows.page_of_results([child_id(job, name, item) for name, item in places], cursor)
    # A mapped node ends with the last item that has a job.
    kept = found[: found.index(None)] if mapped and None in found else found
    end = query.after + len(kept)
    more = len(kept) == len(found) if mapped else end < len(names)
    items = [_item(name, item, own) for (name, item), own in zip(places, kept, strict=False)]
    return {"items": items, "next": end if more else None}


def _item(node: str, item: int | None, job: Job | None) -> dict[str, Any]:
    state = None if job is None else job.state
    result = job.result if job is not None and state is JobState.SUCCEEDED else None
    return {"node": node, "item": item, "job": None if job is None else job.id, "state": state, "result": result}
