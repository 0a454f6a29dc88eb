"""Webhooks: endpoints to which events are posted over HTTP. Each delivery is a job."""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, accepted, mount_path
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.service.errors import WebhookMissing
from jobtape.producer.service.webhooks import WebhookService
from jobtape.schemas.access import Caller
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.ids import parse_job_id
from jobtape.schemas.job import StorableText, Utc
from jobtape.schemas.webhooks.delivery import BodyKind
from jobtape.view.store import Webhook
from jobtape.view.subscribers.webhooks import MOST_BEHIND
from jobtape.webhooks.addresses import MOST_URL

MOST_DESCRIPTION: Final = 500
_EXAMPLE: Final = {"url": "https://example.org/hooks", "filter": {"events": ["failed"], "types": ["mail.*"]}}

M = TypeVar("M", bound=BaseModel)
router = APIRouter(tags=["webhooks"])

Url = Annotated[str, Field(min_length=1, max_length=MOST_URL, description="https://host/path, on port 443 or 8443.")]
Description = Annotated[StorableText, Field(max_length=MOST_DESCRIPTION)]
BODY_FIELD: Final = Field(description="`thin`: which event of which job it was. `full`: also what the event contains.")
SECRET_FIELD: Final = Field(
    description="`whsec_` and the base64 of 24 to 64 bytes. By default a new one is made.", repr=False
)


class WebhookBody(BaseModel):
    """An endpoint. Without `events` in the filter it gets the final ones: `succeeded`, `failed` and `cancelled`."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    description: Description = ""
    filter: EventFilter = EventFilter()
    body: Annotated[BodyKind, BODY_FIELD] = "thin"
    secret: Annotated[str | None, SECRET_FIELD] = None


class WebhookChange(BaseModel):
    """What is to be changed of an endpoint. `filter` replaces the whole filter."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    description: Description | None = None
    filter: EventFilter | None = None
    body: Annotated[BodyKind | None, BODY_FIELD] = None
    enabled: bool | None = None


class RotateBody(BaseModel):
    """The new secret of an endpoint."""

    model_config = ConfigDict(extra="forbid")

    secret: Annotated[str | None, SECRET_FIELD] = None


class WebhookReplayBody(BaseModel):
    """From where on events are delivered that were not: a cursor, or a time."""

    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(None, ge=0, le=MAX_CURSOR)
    since: Utc | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "WebhookReplayBody":
        if (self.after is None) == (self.since is None):
            raise ValueError("give either after, a cursor, or since, a time")
        return self


class WebhookOut(BaseModel):
    """An endpoint and its state."""

    id: str
    url: str
    description: str
    filter: EventFilter
    body: BodyKind
    state: str = Field(
        description="`active`; `failing`: its latest attempt failed; `disabled`: it gets no events.",
        examples=["active"],
    )
    disabled_because: str | None
    failing_since: datetime | None = Field(description="The first of the attempts that have failed without a success.")
    last_error: str | None = Field(description="Why the latest attempt failed.")
    cursor: int = Field(description="Events up to here have become deliveries.")
    behind: int = Field(
        description=f"The number of events after that, whether they match or not; {MOST_BEHIND:,} also means more."
    )
    created_at: datetime


class NewWebhookOut(WebhookOut):
    """A new endpoint with its secret, which is shown only here."""

    secret: str


class WebhooksOut(BaseModel):
    """The endpoints, the oldest first."""

    items: list[WebhookOut]


class SecretOut(BaseModel):
    """The new secret, which is shown only here. The old one also signs for 24 hours."""

    secret: str


class ReencryptedOut(BaseModel):
    """What was encrypted again."""

    webhooks: int = Field(description="How many webhooks had secrets that an older key had encrypted.")


async def _webhooks(request: Request, producer: RunningProducer) -> WebhookService:
    return WebhookService(producer, request.app.state.webhook_allow)


Webhooks = Annotated[WebhookService, Depends(_webhooks)]


async def _its_id(
    request: Request,
    webhooks: Webhooks,
    webhook_id: Annotated[
        str, Path(description="The webhook's id.", examples=["0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"])
    ],
) -> str:
    if (canonical := parse_job_id(webhook_id)) is None:
        raise Problem("webhook-not-found", "the id of a webhook is a UUID: `GET /webhooks` lists them")
    caller = caller_of(request)
    if caller.types and not caller.sees_types((await webhooks.get(canonical)).filter.types):
        raise WebhookMissing(f"there is no webhook {canonical}: `GET /webhooks` lists them")
    return canonical


WebhookId = Annotated[str, Depends(_its_id)]


@router.post(
    "/webhooks",
    status_code=201,
    response_model=NewWebhookOut,
    summary="Create a webhook",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 501, 503),
    openapi_extra=openapi.body(WebhookBody, example=_EXAMPLE),
    dependencies=[Depends(no_query)],
)
async def create_webhook(request: Request, webhooks: Webhooks, body: SmallJson) -> Response:
    """Events from now on are posted to the URL, signed as Standard Webhooks describes. Keep the secret: it is not shown
    again.
    """
    read = _read(WebhookBody, body)
    wanted = _narrowed(caller_of(request), read.filter)
    made, secret = await webhooks.create(read.url, read.description, wanted, read.body, read.secret)
    shown = {**_out(made, 0), "secret": secret}
    return PydanticJSONResponse(shown, 201, {"Location": f"{mount_path(request)}/webhooks/{made.id}"})


@router.get(
    "/webhooks",
    response_model=WebhooksOut,
    summary="List the webhooks",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def list_webhooks(request: Request, webhooks: Webhooks) -> Response:
    """With their states. Their deliveries are `GET /jobs?type=jobtape.webhook&label=webhook:<id>`."""
    caller = caller_of(request)
    found = [each for each in await webhooks.all() if caller.sees_types(each.filter.types)]
    return PydanticJSONResponse({"items": [await _shown(webhooks, each) for each in found]})


@router.get(
    "/webhooks/{webhook_id}",
    response_model=WebhookOut,
    summary="Read a webhook",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def read_webhook(webhook_id: WebhookId, webhooks: Webhooks) -> Response:
    """With its state."""
    return PydanticJSONResponse(await _shown(webhooks, await webhooks.get(webhook_id)))


@router.patch(
    "/webhooks/{webhook_id}",
    response_model=WebhookOut,
    summary="Change a webhook",
    responses=openapi.problems(400, 401, 404, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(WebhookChange, example={"enabled": True}),
    dependencies=[Depends(no_query)],
)
async def change_webhook(webhook_id: WebhookId, request: Request, webhooks: Webhooks, body: SmallJson) -> Response:
    """The change counts for the next attempt of each open delivery. A webhook that is enabled again gets the events
    from now on; a replay brings the ones that it has missed.
    """
    values = _read(WebhookChange, body)
    given = {name: getattr(values, name) for name in values.model_fields_set if getattr(values, name) is not None}
    if "filter" in given:
        given["filter"] = _narrowed(caller_of(request), given["filter"])
    return PydanticJSONResponse(await _shown(webhooks, await webhooks.change(webhook_id, given)))


@router.delete(
    "/webhooks/{webhook_id}",
    response_model=WebhookOut,
    summary="Delete a webhook",
    response_description="The webhook as it was.",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def delete_webhook(webhook_id: WebhookId, webhooks: Webhooks) -> Response:
    """It gets no more events, and its open deliveries fail at their next attempt."""
    return PydanticJSONResponse(_out(await webhooks.delete(webhook_id), 0))


@router.post(
    "/webhooks/reencrypt",
    response_model=ReencryptedOut,
    summary="Encrypt all secrets with the newest key",
    responses=openapi.problems(401, 422, 501, 503),
    dependencies=[Depends(no_query)],
)
async def reencrypt_secrets(webhooks: Webhooks) -> Response:
    """After a new first key in JOBTAPE_SECRET_KEYS, when all parts have it. The secrets themselves stay the same, so
    receivers change nothing.
    """
    return PydanticJSONResponse({"webhooks": await webhooks.reencrypt()})


@router.post(
    "/webhooks/{webhook_id}/rotate",
    response_model=SecretOut,
    summary="Rotate the secret",
    responses=openapi.problems(400, 401, 404, 408, 413, 415, 422, 501, 503),
    openapi_extra=openapi.body(RotateBody, example={}),
    dependencies=[Depends(no_query)],
)
async def rotate_secret(webhook_id: WebhookId, webhooks: Webhooks, body: SmallJson) -> Response:
    """For 24 hours each request has a signature of the old secret too, so the receiver can change over."""
    secret = _read(RotateBody, body).secret
    return PydanticJSONResponse({"secret": await webhooks.rotate(webhook_id, secret)})


@router.post(
    "/webhooks/{webhook_id}/test",
    status_code=202,
    response_model=JobOut,
    summary="Send a test event",
    response_description="The delivery. Its end says what the endpoint answered.",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def test_webhook(webhook_id: WebhookId, webhooks: Webhooks) -> Response:
    """One attempt, with an event of the type `webhook.test`. Works for a disabled webhook too."""
    return accepted(await webhooks.test(webhook_id))


@router.post(
    "/webhooks/{webhook_id}/replay",
    status_code=202,
    response_model=WebhookOut,
    summary="Deliver what was missed",
    response_description="The webhook, at its earlier cursor.",
    responses=openapi.problems(400, 401, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.body(WebhookReplayBody, example={"since": "2030-01-01T00:00:00Z"}),
    dependencies=[Depends(no_query)],
)
async def replay_webhook(webhook_id: WebhookId, webhooks: Webhooks, body: SmallJson) -> Response:
    """Past events that match and were not delivered are delivered now. An event that was delivered is not sent again:
    redrive its job for that.
    """
    read = _read(WebhookReplayBody, body)
    replayed = await webhooks.replay(webhook_id, after=read.after, since=read.since)
    return PydanticJSONResponse(await _shown(webhooks, replayed), 202)


def _narrowed(caller: Caller, wanted: EventFilter) -> EventFilter:
    """Return the filter for the events that the caller sees."""
    return wanted.model_copy(update={"types": caller.narrow(wanted.types)}) if caller.types else wanted


def _read(model: type[M], body: Any) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
        raise Problem("invalid-webhook", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None


async def _shown(webhooks: WebhookService, webhook: Webhook) -> dict[str, Any]:
    return _out(webhook, await webhooks.behind(webhook))


def _out(webhook: Webhook, behind: int) -> dict[str, Any]:
    names = [name for name in WebhookOut.model_fields if name not in ("behind", "filter")]
    wanted = webhook.filter.model_dump(exclude_defaults=True)
    return {**{name: getattr(webhook, name) for name in names}, "filter": wanted, "behind": behind}
