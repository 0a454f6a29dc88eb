"""``GET /dead``: messages that came to a work queue and are no job."""

import base64
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from jobtape.producer.http import openapi
from jobtape.producer.http.auth import RunningProducer
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import no_query
from jobtape.schemas import plainjson
from jobtape.view.store import DeadMessage

router = APIRouter(tags=["operations"])


class DeadOut(BaseModel):
    """``size``: bytes of the whole body."""

    id: int
    at: datetime = Field(description="When it was put aside.")
    reason: str
    size: int


class DeadMessageOut(DeadOut):
    """With its body, of which at most a MiB is kept: as text, or where it is none, in Base64."""

    text: str | None
    base64: str | None


class DeadPage(BaseModel):
    """Newest first; ``next`` is the ``before`` of the next page, null on the last."""

    items: list[DeadOut]
    next: int | None


class DeadQuery(BaseModel):
    """The page of ``GET /dead``."""

    model_config = ConfigDict(extra="forbid")

    before: int | None = Field(None, ge=0, lt=2**63, description="Only those of smaller numbers.")
    limit: int = Field(100, ge=1, le=1000)


@router.get(
    "/dead",
    summary="Messages that are no job",
    responses=openapi.answers(200, "DeadPage", "A page.", 401, 422, 503),
)
async def list_dead(query: Annotated[DeadQuery, Query()], producer: RunningProducer) -> Response:
    """What workers could not read as work, and what the broker gave up of jobs that nobody knows. The newest 10,000,
    and at most 256 MiB of them, are kept. Jobs that failed are in `GET /jobs?state=failed`.
    """
    found = await producer.dead_messages(query.before, query.limit + 1)
    page = found[: query.limit]
    following = page[-1].id if len(found) > query.limit else None
    return _json({"items": [_out(message) for message in page], "next": following})


@router.get(
    "/dead/{number}",
    summary="One of them, with its body",
    responses=openapi.answers(200, "DeadMessageOut", "The message.", 401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def get_dead(number: Annotated[int, Path(ge=0, lt=2**63)], producer: RunningProducer) -> Response:
    """As it was taken from the queue."""
    message = await producer.dead_message(number)
    if message is None:
        raise Problem("not-found", f"there is no dead message {number} (any more): see GET /dead")
    return _json(_out(message) | _body(message.body))


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


def _json(value: object) -> Response:
    return Response(to_json(value), 200, media_type="application/json")
