"""Parts of the OpenAPI document that FastAPI cannot derive: problems, request bodies that routes parse themselves, and
headers.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from jobtape.producer.http.problems import KINDS, MEDIA_TYPE, RETRY_AFTER, URN
from jobtape.producer.http.stream_parameters import LAST_EVENT_ID
from jobtape.producer.live import event_stream, outcome_wait
from jobtape.producer.service.submission import idempotency

REF: Final = "#/components/schemas/"

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": idempotency.HEADER,
    "description": "Makes the request safe to repeat: the same submission under the same key is one job. A structured "
    'field string (`"8e03978e"`) or the same without quotes; 1 to 255 visible ASCII characters.',
    "schema": {"type": "string", "minLength": 1},
}
LAST_EVENT: Final[dict[str, Any]] = {
    "name": LAST_EVENT_ID,
    "description": "The id of the last event that you received. It has priority over `lastEventId` and `after`. "
    "An empty value is ignored.",
    "schema": {"type": "integer", "minimum": 0},
}
PREFER: Final[dict[str, Any]] = {
    "name": outcome_wait.HEADER,
    "description": "`wait=10` (RFC 7240): respond when the job has ended, after 10 seconds at the latest. "
    f"`{outcome_wait.APPLIED}` contains the seconds that were granted. It is missing when too many requests wait "
    "already; then the response comes at once.",
    "schema": {"type": "string"},
    "example": "wait=10",
}
SEARCH: Final[dict[str, Any]] = {
    "parameters": [
        {
            "in": "query",
            "name": "search",
            "description": "`payload.<path>=value` and `result.<path>=value`, such as `payload.customer.id=42`.",
            "style": "form",
            "explode": True,
            "schema": {
                "type": "object",
                "propertyNames": {"pattern": r"^(payload\.|result\.|result$)"},
                "additionalProperties": {"type": "string"},
            },
        }
    ]
}
"""Parameters of any name that begins in this way."""
STREAM: Final[dict[str, Any]] = {
    event_stream.MEDIA_TYPE: {
        "schema": {"type": "string"},
        "example": (
            'retry: 2000\nevent: hello\nid: 281474976710690\ndata: {"cursor":281474976710690}\n\n'
            "id: 281474976710702\nevent: succeeded\n"
            'data: {"specversion":"1.0","type":"jobtape.job.succeeded",'
            '"subject":"0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90",'
            '"data":{"job_type":"add","run":1,"attempt":1,"result":7},"cursor":281474976710702}\n\n'
            ": keep-alive\nid: 281474976710745\n\n"
        ),
    }
}
"""The content of a response that is a stream of server-sent events."""

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """Return the responses with these statuses, each with its kinds of problems as examples."""
    return {status: _problem(status) for status in statuses}


def body(model: type[BaseModel], **media_type: Any) -> dict[str, Any]:
    """Return the request body of a route that parses ``model`` itself, with further fields such as ``example``."""
    return bodies({"application/json": {"schema": {"$ref": REF + model.__name__}, **media_type}})


def bodies(content: dict[str, Any]) -> dict[str, Any]:
    """Return a request body with one entry in ``content`` for each media type."""
    return {"requestBody": {"required": True, "content": content}}


def headers(*described: dict[str, Any]) -> dict[str, Any]:
    """Return the headers that a route reads, as parameters."""
    return {"parameters": [{"in": "header", **header} for header in described]}


def install(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Add the schemas of ``models`` to the document of ``app``, so that references to them resolve."""
    generate = app.openapi
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=REF + "{model}")

    def document() -> dict[str, Any]:
        made = generate()
        made["components"]["schemas"].update(found["$defs"])
        return made

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _problem(status: int) -> dict[str, Any]:
    kinds = {kind: title for kind, (its_status, title) in KINDS.items() if its_status == status}
    detail = "What is wrong, and what to do next."
    examples = {
        kind: {"value": {"type": URN + kind, "title": title, "status": status, "detail": detail}}
        for kind, title in kinds.items()
    }
    response: dict[str, Any] = {
        "description": "; ".join(kinds.values()),
        "content": {MEDIA_TYPE: {"schema": {"$ref": REF + "ProblemDetails"}, "examples": examples}},
    }
    if status in (409, 429, 503):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "example": RETRY_AFTER}}
    return response
