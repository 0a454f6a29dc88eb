"""``GET /dead`` and ``GET /dead/{number}``: messages that came to a work queue and are not jobs."""

import base64
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field

from jobtape.producer.http import openapi
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import LARGEST_PAGE
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.schemas import plainjson
from jobtape.view.store import DeadMessage

router = APIRouter(tags=["operations"])


class DeadOut(BaseModel):
    """A message without its body. ``size`` is the number of bytes of the whole body."""

    id: int
    at: datetime = Field(description="When it was stored here.")
    reason: str
    size: int


class DeadMessageOut(DeadOut):
    """A message with its body, of which the first MiB is kept: as text, or as Base64 if it is not text."""

    text: str | None
    base64: str | None


class DeadPage(BaseModel):
    """Messages, newest first. Send ``next`` as ``before`` to get the next page; it is null on the last page."""

    items: list[DeadOut]
    next: int | None


class DeadQuery(BaseModel, extra="forbid"):
    """The query parameters of ``GET /dead``."""

    before: int | None = Field(None, ge=0, lt=2**63, description="Only messages with smaller ids.")
    limit: int = Field(100, ge=1, le=LARGEST_PAGE)


@router.get(
    "/dead",
    response_model=DeadPage,
    summary="List messages that are not jobs",
    responses=openapi.problems(401, 422, 503),
)
async def list_dead(query: Annotated[DeadQuery, Query()], producer: RunningProducer) -> Response:
    """Messages that workers could not read as jobs, and messages that the broker gave up on and whose jobs are unknown.
    The newest 10,000 are kept, up to 256 MiB. Jobs that failed are in `GET /jobs?state=failed`.
    """
    found = await producer.read(producer.store.dead_messages.page, query.before, query.limit + 1)
    page = found[: query.limit]
    following = page[-1].id if len(found) > query.limit else None
    return PydanticJSONResponse({"items": [_out(message) for message in page], "next": following})


@router.get(
    "/dead/{number}",
    response_model=DeadMessageOut,
    summary="Get a message that is not a job",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def get_dead(number: Annotated[int, Path(ge=0, lt=2**63)], producer: RunningProducer) -> Response:
    """The body is returned as it was in the queue."""
    message = await producer.read(producer.store.dead_messages.get, number)
    if message is None:
        raise Problem("not-found", f"there is no dead message {number}, or it was deleted: see GET /dead")
    return PydanticJSONResponse(_out(message) | _body(message.body))


def _out(message: DeadMessage) -> dict[str, Any]:
    return {"id": message.id, "at": message.at, "reason": message.reason, "size": message.size}


def _body(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if plainjson.fault(text) is None:
        return {"text": text, "base64": None}
    return {"text": None, "base64": base64.b64encode(body).decode()}
