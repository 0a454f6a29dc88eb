"""The OpenAPI document: our problems instead of FastAPI's own errors, and examples that run as they stand."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from jobtape.producer.http.problems import KINDS, MEDIA_TYPE, RETRY_AFTER, URN
from jobtape.producer.service.idempotency import HEADER

_REF: Final = "#/components/schemas/"
_EXAMPLE: Final[dict[str, Any]] = {"type": "add", "payload": {"x": 3, "y": 4}}
_LABELLED: Final[dict[str, Any]] = {
    "type": "add",
    "payload": {"x": 3, "y": 4},
    "timeout": 30,
    "labels": {"customer": "42"},
    "correlation_id": "order-7",
}

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": HEADER,
    "description": "Makes the request safe to repeat: the same submission under the same key is one job. A structured "
    'field string (`"8e03978e"`) or the same without quotes; 1 to 255 visible ASCII characters.',
    "schema": {"type": "string", "minLength": 1},
}
"""The header of ``POST /jobs``."""

Answers = dict[int | str, dict[str, Any]]


def answers(status: int, model: str, description: str, *failures: int) -> Answers:
    """The answers of a route: what it gives in the good case, and the problems."""
    good = {"description": description, "content": {"application/json": {"schema": {"$ref": _REF + model}}}}
    return {status: good, **problems(*failures)}


def problems(*statuses: int) -> Answers:
    """The problems of these statuses, each with its kinds as examples."""
    return {status: _not_modified() if status == 304 else _problem(status) for status in statuses}


def submission_body() -> dict[str, Any]:
    """The request body of ``POST /jobs``."""
    examples = {"plain": {"value": _EXAMPLE}, "with options": {"value": _LABELLED}}
    content = {"application/json": {"schema": {"$ref": _REF + "Submission"}, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def headers(*described: dict[str, Any]) -> dict[str, Any]:
    """The headers that a route heeds, besides what FastAPI knows."""
    return {"parameters": [{"in": "header", **header} for header in described]}


def batch_body() -> dict[str, Any]:
    """The request body of ``POST /jobs/batch``."""
    array = {"type": "array", "items": {"$ref": _REF + "BatchSubmission"}, "minItems": 1}
    lines = (
        '{"type": "add", "payload": {"x": 1, "y": 2}, "idempotency_key": "sum-1"}\n'
        '{"type": "add", "payload": {"x": 3, "y": 4}}\n'
    )
    content = {
        "application/json": {"schema": array, "example": [_EXAMPLE, _LABELLED]},
        "application/x-ndjson": {"schema": {"type": "string"}, "example": lines},
    }
    return {"requestBody": {"required": True, "content": content}}


def redrive_body() -> dict[str, Any]:
    """The request body of ``POST /redrives``."""
    example = {"type": ["add"], "reason": ["timeout"], "since": "2030-01-31T00:00:00Z", "dry_run": True}
    content = {"application/json": {"schema": {"$ref": _REF + "RedriveQuery"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def replay_body() -> dict[str, Any]:
    """The request body of ``POST /replays``."""
    example = {
        "queue": "audit",
        "since": "2030-01-31T00:00:00Z",
        "events": ["succeeded", "failed"],
        "types": ["mail.*"],
    }
    content = {"application/json": {"schema": {"$ref": _REF + "ReplayOrder"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Let ``app`` give a document in which ``models`` can be referred to by name."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, models)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, ours = models_json_schema([(model, "validation") for model in models], ref_template=_REF + "{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(ours["$defs"])
    return document


def _problem(status: int) -> dict[str, Any]:
    kinds = [kind for kind, (its_status, _) in KINDS.items() if its_status == status]
    answer: dict[str, Any] = {
        "description": "; ".join(KINDS[kind][1] for kind in kinds),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": _REF + "ProblemDetails"},
                "examples": {kind: {"value": _problem_example(kind)} for kind in kinds},
            }
        },
    }
    if status in (409, 503):
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "example": RETRY_AFTER}}
    return answer


def _problem_example(kind: str) -> dict[str, Any]:
    status, title = KINDS[kind]
    return {"type": URN + kind, "title": title, "status": status, "detail": "What is wrong, and what to do next."}


def _not_modified() -> dict[str, Any]:
    return {"description": "Nothing has happened since: the `ETag` is one of those in `If-None-Match`."}
