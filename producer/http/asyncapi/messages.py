"""Messages of the AsyncAPI document. The schemas come from the event models."""

import inspect
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from jobtape.schemas.events import CONTENT_TYPE, EVENT_CLASSES
from jobtape.schemas.job import JobState

REF: Final = "#/components/schemas/"
_CURSOR: Final = {"type": "integer", "minimum": 1, "description": "The position on the tape. It only increases."}


def event_schemas() -> dict[str, Any]:
    """Return the schemas of all events, and of the attributes that delivery adds."""
    _, found = models_json_schema([(cls, "serialization") for cls in EVENT_CLASSES], ref_template=REF + "{model}")
    headers = {
        "cursor": _CURSOR,
        "job": {"type": "string", "description": "The job's id."},
        "job_type": {"type": "string"},
        "state": {"enum": [state.value for state in JobState], "description": "The state of the job after the event."},
    }
    labels = {"labels": {"type": "object", "additionalProperties": {"type": "string"}}}
    return {
        **found["$defs"],
        "Delivered": object_schema({"cursor": _CURSOR}),
        "Headers": {"type": "object", "required": list(headers), "properties": headers | labels},
    }


def event_messages() -> dict[str, Any]:
    """Return a message for each event, and the two others in a stream."""
    return {
        **{cls.name: _event_message(cls) for cls in EVENT_CLASSES},
        "hello": message(
            "hello",
            "The start of the stream. Its id is the position.",
            object_schema({"cursor": _CURSOR | {"minimum": 0}}),
        ),
        "reset": message(
            "reset",
            "The history after the requested position was deleted, or the position is of another tape. The stream "
            "continues after this id.",
            object_schema({"horizon": {"type": "integer"}, "head": {"type": "integer"}}),
        ),
    }


def message(name: str, summary: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return a message with the JSON Schema ``payload``."""
    return {"name": name, "title": name, "summary": summary, "contentType": "application/json", "payload": payload}


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object whose properties are all required."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _event_message(cls: type[Any]) -> dict[str, Any]:
    return {
        "name": f"jobtape.job.{cls.name}",
        "title": cls.name,
        "summary": inspect.cleandoc(cls.__doc__ or ""),
        "contentType": CONTENT_TYPE,
        "headers": {"$ref": REF + "Headers"},
        "payload": {"allOf": [{"$ref": REF + cls.__name__}, {"$ref": REF + "Delivered"}]},
        "correlationId": {
            "location": "$message.payload#/correlationid",
            "description": "The correlation id of the job, if it has one.",
        },
        "bindings": {"amqp": {"messageType": cls.name, "bindingVersion": "0.3.0"}},
    }
