"""The events as messages of the AsyncAPI document: their schemas from the models, their examples from a real tape."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from jobtape.producer.http.asyncapi.event_examples import Example
from jobtape.schemas.events import CONTENT_TYPE, EVENT_CLASSES
from jobtape.schemas.job import JobState

_REF: Final = "#/components/schemas/"
_CURSOR: Final = {"type": "integer", "minimum": 1, "description": "The position on the tape. It only increases."}


def event_schemas() -> dict[str, Any]:
    """Return the schemas of all events, and of the attributes that delivery adds."""
    _, found = models_json_schema([(cls, "serialization") for cls in EVENT_CLASSES], ref_template=_REF + "{model}")
    schemas: dict[str, Any] = found["$defs"]
    return schemas | {
        "Delivered": {"type": "object", "required": ["cursor"], "properties": {"cursor": _CURSOR}},
        "Headers": {
            "type": "object",
            "required": ["cursor", "job", "job_type", "state"],
            "properties": {
                "cursor": _CURSOR,
                "job": {"type": "string", "description": "The job's id."},
                "job_type": {"type": "string"},
                "state": {
                    "enum": [state.value for state in JobState],
                    "description": "The state of the job after the event.",
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
    }


def event_messages(found: Mapping[str, Example]) -> dict[str, Any]:
    """One for each event, and the two that streams have of their own; ``found``: the examples by name."""
    events = {cls.name: _message(cls, found[cls.name]) for cls in EVENT_CLASSES}
    cursor = found["submitted"].headers["cursor"]
    return events | {
        "hello": _control(
            "hello",
            "Where the stream begins; its id is the position.",
            {"cursor": _CURSOR | {"minimum": 0}},
            {"cursor": cursor},
        ),
        "reset": _control(
            "reset",
            "The history after the requested position was deleted, or the position is of another tape. The stream "
            "continues after this id.",
            {"horizon": {"type": "integer"}, "head": {"type": "integer"}},
            {"horizon": cursor, "head": cursor + 12},
        ),
    }


def _message(cls: type[Any], example: Example) -> dict[str, Any]:
    return {
        "name": f"jobtape.job.{cls.name}",
        "title": cls.name,
        "summary": inspect.cleandoc(cls.__doc__ or ""),
        "contentType": CONTENT_TYPE,
        "headers": {"$ref": _REF + "Headers"},
        "payload": {"allOf": [{"$ref": _REF + cls.__name__}, {"$ref": _REF + "Delivered"}]},
        "correlationId": {
            "location": "$message.payload#/correlationid",
            "description": "The correlation id of the job, if it has one.",
        },
        "bindings": {"amqp": {"messageType": cls.name, "bindingVersion": "0.3.0"}},
        "examples": [{"name": cls.name, "headers": example.headers, "payload": example.delivered}],
    }


def _control(name: str, summary: str, properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": "application/json",
        "payload": {"type": "object", "required": list(properties), "properties": properties},
        "examples": [{"name": name, "payload": example}],
    }
