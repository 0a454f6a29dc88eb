"""Pauses of queues and job types, and new values of limits. Each is a job that is never run."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, accepted
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.service import rules
from jobtape.schemas.job import JobTypeName, WorkQueueName
from jobtape.schemas.queueing.gates import LONGEST_RATE, GateKey, Limit, LimitName
from jobtape.schemas.rules.rules import Pause

router = APIRouter(tags=["operations"])
Queue = Annotated[WorkQueueName, Path(alias="queue")]
TypeName = Annotated[JobTypeName, Path(alias="name")]
Name = Annotated[LimitName, Path(alias="name")]
Committed = Annotated[
    bool,
    Query(
        description="Return what the view has now. By default the response waits until the view has read the tape, "
        "which puts a message on it: too much for who asks again and again."
    ),
]


class LimitBody(BaseModel):
    """The new values of a limit. With ``per`` it is that of the rate, without it that of the jobs at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at_most: int = Field(ge=1, lt=2**31)
    per: float | None = Field(None, gt=0, le=LONGEST_RATE, allow_inf_nan=False, description="Seconds.")
    key: GateKey = Field("", description="Only for this key, as `waits_for` shows it; by default for all.")


class ChangedLimitOut(Limit):
    """A changed limit. ``id``: the rule's job."""

    id: str


class ChangedLimitsOut(BaseModel):
    """All changed limits, by name and key."""

    items: list[ChangedLimitOut]


class RulesEndedOut(BaseModel):
    """The ids of the rules that were in force and are not any more."""

    ended: list[str]


@router.post(
    "/queues/{queue}/pause",
    status_code=202,
    response_model=JobOut,
    summary="Pause a queue",
    response_description="The pause, a job that is in force until it is cancelled.",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def pause_queue(queue: Queue, producer: RunningProducer) -> Response:
    """No job of the queue begins until it is resumed. Running jobs go on, and jobs are accepted as always."""
    return accepted(await rules.pause(producer, Pause(queue=queue)))


@router.post(
    "/queues/{queue}/resume",
    response_model=RulesEndedOut,
    summary="Resume a queue",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def resume_queue(queue: Queue, producer: RunningProducer) -> Response:
    """End all pauses of the queue."""
    return PydanticJSONResponse({"ended": await rules.resume(producer, Pause(queue=queue))})


@router.post(
    "/job-types/{name}/pause",
    status_code=202,
    response_model=JobOut,
    summary="Pause a job type",
    response_description="The pause, a job that is in force until it is cancelled.",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def pause_type(name: TypeName, request: Request, producer: RunningProducer) -> Response:
    """No job of the type begins until it is resumed. Running jobs go on, and jobs are accepted as always."""
    caller_of(request).narrow([name])
    return accepted(await rules.pause(producer, Pause(type=name)))


@router.post(
    "/job-types/{name}/resume",
    response_model=RulesEndedOut,
    summary="Resume a job type",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def resume_type(name: TypeName, request: Request, producer: RunningProducer) -> Response:
    """End all pauses of the job type."""
    caller_of(request).narrow([name])
    return PydanticJSONResponse({"ended": await rules.resume(producer, Pause(type=name))})


@router.put(
    "/limits/{name}",
    status_code=202,
    response_model=JobOut,
    summary="Change a limit",
    response_description="The new values, a job that is in force until it is cancelled.",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(LimitBody, example={"at_most": 20}),
    dependencies=[Depends(no_query)],
)
async def change_limit(name: Name, producer: RunningProducer, body: SmallJson) -> Response:
    """The limit with this name has these values from now on, for waiting jobs too. Running jobs keep their slots."""
    new = _limit(body)
    return accepted(await rules.change_limit(producer, Limit(name=name, **new.model_dump())))


@router.get(
    "/limits",
    response_model=ChangedLimitsOut,
    summary="List the changed limits",
    responses=openapi.problems(401, 422, 503),
)
async def list_limits(producer: RunningProducer, committed: Committed = False) -> Response:
    """The limits that have other values than those of the job types, which `GET /job-types` shows."""
    found = await rules.limits(producer, committed=committed)
    return PydanticJSONResponse({"items": [{**limit.model_dump(), "id": rule.id} for rule, limit in found]})


@router.delete(
    "/limits/{name}",
    response_model=RulesEndedOut,
    summary="Restore a limit",
    responses=openapi.problems(401, 422, 503),
)
async def restore_limit(
    name: Name, producer: RunningProducer, key: Annotated[GateKey, Query(description="That of the change.")] = ""
) -> Response:
    """The limit has the values of the job types again."""
    return PydanticJSONResponse({"ended": await rules.restore_limit(producer, name, key)})


def _limit(body: Any) -> LimitBody:
    try:
        return LimitBody.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"]) for fault in error.errors(include_url=False)]
        raise Problem("invalid-limit", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None
