"""``/keys``: API keys, for who has the scope ``manage`` and sees all job types."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobtape.producer.http import openapi
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.service.errors import KeyMissing
from jobtape.producer.service.keys import OVERLAP
from jobtape.schemas.access import Scope
from jobtape.schemas.ids import parse_job_id
from jobtape.schemas.job import JobTypeName, StorableText, Utc
from jobtape.view.records.api_keys import ApiKey

_EXAMPLE: Final = {"name": "shop", "scopes": ["submit", "read"], "types": ["mail.send"], "expires_in": 7776000}
_YEARS: Final = 10 * 366 * 86_400.0

M = TypeVar("M", bound=BaseModel)
router = APIRouter(tags=["keys"], dependencies=[Depends(no_query)])


class KeyBody(BaseModel):
    """A new API key. Without `types` it sees and touches jobs of all types, without an end it does not expire."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StorableText, Field(min_length=1, max_length=120, description="Who uses it.")]
    scopes: list[Scope] = Field(min_length=1, max_length=3, description="What it is for; none contains another.")
    types: list[JobTypeName] = Field(default_factory=list, max_length=50, description="Only jobs of these types.")
    rate: float | None = Field(
        None, gt=0, le=1_000_000, allow_inf_nan=False, description="Requests in a second, for each API process."
    )
    expires_in: float | None = Field(None, gt=0, le=_YEARS, allow_inf_nan=False, description="Seconds from now on.")
    expires_at: Utc | None = Field(None, description="Instead of `expires_in`: a time (RFC 3339).")


class KeyRotateBody(BaseModel):
    """How long the old key is valid besides the new one."""

    model_config = ConfigDict(extra="forbid")

    overlap: float = Field(OVERLAP, ge=0, le=30 * 86_400.0, allow_inf_nan=False, description="Seconds.")


class KeyOut(BaseModel):
    """An API key without itself."""

    id: str
    name: str
    state: str = Field(description="`active`, `expired` or `revoked`.", examples=["active"])
    scopes: list[Scope]
    types: list[str] = Field(description="The job types that it is limited to; an empty list means all.")
    rate: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None = Field(description="When it was used last, to a minute.")
    old_until: datetime | None = Field(description="Until when the key before the last rotation is valid too.")


class NewKeyOut(KeyOut):
    """A key with its text, which is shown only here."""

    key: str


class KeysOut(BaseModel):
    """The API keys, the oldest first."""

    items: list[KeyOut]


async def _canonical_id(
    key_id: Annotated[str, Path(description="The key's id.", examples=["0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"])],
) -> str:
    if (canonical := parse_job_id(key_id)) is None:
        raise KeyMissing("the id of an API key is a UUID: `GET /keys` lists them")
    return canonical


KeyId = Annotated[str, Depends(_canonical_id)]


@router.post(
    "/keys",
    status_code=201,
    response_model=NewKeyOut,
    summary="Create an API key",
    responses=openapi.problems(400, 401, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.body(KeyBody, example=_EXAMPLE),
)
async def create_key(request: Request, producer: RunningProducer, body: SmallJson) -> Response:
    """Keep `key`: it is not shown again, and only its hash is stored. `read` is for GET and streams, `submit` for jobs,
    flows and signals, `manage` for everything else.
    """
    if request.app.state.api_key is None:
        raise Problem(
            "keys-not-required", "this API answers everybody: start it with JOBTAPE_API_KEY first, then create keys"
        )
    wanted = _read(KeyBody, body)
    if wanted.expires_in is not None and wanted.expires_at is not None:
        raise Problem("invalid-key", "/expires_in: give it or expires_at, not both", errors=[("/expires_in", "both")])
    ends = wanted.expires_at
    if wanted.expires_in is not None:
        ends = datetime.now(UTC) + timedelta(seconds=wanted.expires_in)
    made, text = await producer.keys.create(wanted.name, wanted.scopes, wanted.types, wanted.rate, ends)
    return PydanticJSONResponse(_out(made) | {"key": text}, 201)


@router.get("/keys", response_model=KeysOut, summary="List the API keys", responses=openapi.problems(401, 422, 503))
async def list_keys(producer: RunningProducer) -> Response:
    """Also those that have expired or were revoked. JOBTAPE_API_KEY is not among them."""
    return PydanticJSONResponse({"items": [_out(key) for key in await producer.keys.all()]})


@router.post(
    "/keys/{key_id}/rotate",
    response_model=NewKeyOut,
    summary="Rotate an API key",
    responses=openapi.problems(400, 401, 404, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(KeyRotateBody, example={"overlap": 3600}),
)
async def rotate_key(key_id: KeyId, producer: RunningProducer, body: SmallJson) -> Response:
    """The same key with a new text, which is shown only here. The old one is valid for `overlap` seconds more, 24 hours
    by default.
    """
    made, text = await producer.keys.rotate(key_id, _read(KeyRotateBody, body).overlap)
    return PydanticJSONResponse(_out(made) | {"key": text})


@router.delete(
    "/keys/{key_id}",
    response_model=KeyOut,
    summary="Revoke an API key",
    responses=openapi.problems(401, 404, 422, 503),
)
async def revoke_key(key_id: KeyId, producer: RunningProducer) -> Response:
    """No request with it is answered any more: at once by this API process, and within 5 seconds by the others. Streams
    that it has opened end in that time too.
    """
    return PydanticJSONResponse(_out(await producer.keys.revoke(key_id)))


def _read(model: type[M], body: Any) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
        raise Problem("invalid-key", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None


def _out(key: ApiKey) -> dict[str, Any]:
    names = ("id", "name", "rate", "created_at", "expires_at", "revoked_at", "used_at", "old_until")
    lists = {"scopes": sorted(key.scopes), "types": sorted(key.types), "state": key.state(datetime.now(UTC))}
    return {name: getattr(key, name) for name in names} | lists
