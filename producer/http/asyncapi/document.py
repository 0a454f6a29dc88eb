"""``/asyncapi.json``: the events that this installation delivers, as an AsyncAPI 3.0 document.

It is generated from the event models, the topology and the query models of the routes, so it always matches them.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from jobtape.producer.http.asyncapi import websocket
from jobtape.producer.http.asyncapi.messages import event_messages, event_schemas
from jobtape.producer.http.dependencies import RunningProducer
from jobtape.producer.http.representation import PydanticJSONResponse, mount_path
from jobtape.producer.http.stream_parameters import JobEventsQuery, StreamQuery
from jobtape.schemas.events import EVENT_NAMES, RELAYED_EVENTS
from jobtape.schemas.job import QUEUE_PATTERN
from jobtape.schemas.topology import Topology, reply_key, result_key

router = APIRouter(include_in_schema=False)
"""Needs no API key, like ``/openapi.json``, because the document contains only names."""


@router.get("/asyncapi.json")
async def asyncapi(request: Request, producer: RunningProducer) -> Response:
    """Return the document, with the address of this request as the server."""
    secured = request.app.state.api_key is not None
    document = document_of(
        producer.topology, request.url.netloc, mount_path(request), request.url.scheme, secured=secured
    )
    return PydanticJSONResponse(document)


def document_of(topology: Topology, host: str, prefix: str, scheme: str, *, secured: bool) -> dict[str, Any]:
    """Return the document for the API at ``host``, ``prefix`` and ``scheme``. ``secured``: the API needs a key."""
    scheme_of_key = {"type": "http", "scheme": "bearer", "description": "JOBTAPE_API_KEY"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Jobtape",
            "version": version("jobtape"),
            "description": (
                "The events of jobs: over AMQP from one exchange, over HTTP as server-sent events or a WebSocket. "
                "After you receive an event, a GET of its job already includes it. AMQP delivers at least once: "
                "ignore an event whose `id` you have already seen."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(host, prefix, scheme, secured=secured),
        "channels": _channels(topology),
        "operations": _operations(),
        "components": {
            "schemas": event_schemas(),
            "messages": event_messages() | websocket.messages(),
            **({"securitySchemes": {"key": scheme_of_key}} if secured else {}),
        },
    }


def _servers(host: str, prefix: str, scheme: str, *, secured: bool) -> dict[str, Any]:
    here: dict[str, Any] = {"host": host}
    if prefix:
        here["pathname"] = prefix
    if secured:
        here["security"] = [{"$ref": "#/components/securitySchemes/key"}]
    return {
        "broker": {
            "host": "{broker}",
            "protocol": "amqp",
            "description": "RabbitMQ. A subscriber only needs the right to bind its own queues.",
            "variables": {"broker": {"default": "localhost:5672", "description": "As in RABBITMQ_URL."}},
        },
        "api": {**here, "protocol": scheme},
        "socket": {**here, "protocol": "wss" if scheme == "https" else "ws"},
    }


def _channels(topology: Topology) -> dict[str, Any]:
    exchange = {"name": topology.results.name, "type": topology.results.type, "durable": True, "autoDelete": False}
    amqp = {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}}
    names = [name for name in EVENT_NAMES if name in RELAYED_EVENTS["all"]]
    amqp_channel = {"servers": [{"$ref": "#/servers/broker"}], "messages": _messages(names), "bindings": amqp}
    stream = {
        "servers": [{"$ref": "#/servers/api"}],
        "messages": _messages((*EVENT_NAMES, "hello", "reset")),
    }
    return {
        "results": {
            "address": result_key("{event}", "{jobType}"),
            "title": "Results over AMQP",
            "description": (
                "Bind a queue of your own: `succeeded.#`, `*.mail.send`, `failed.billing.#`. JOBTAPE_RELAY_EVENTS "
                "selects the events: the final ones (succeeded, failed, cancelled), or all."
            ),
            "parameters": {
                "event": {"description": "The name of the event.", "enum": names},
                "jobType": {"description": "The job type. Its dots separate words of the key."},
            },
            **amqp_channel,
        },
        "replies": {
            "address": reply_key("{replyTo}"),
            "title": "Replies over AMQP",
            "description": "A second copy of the events of jobs that were submitted with this `reply_to`.",
            "parameters": {"replyTo": {"description": f"A name that matches {QUEUE_PATTERN}."}},
            **amqp_channel,
        },
        "events": {
            "address": "/events",
            "title": "Server-sent events",
            "description": (
                "`id:` is the cursor, `event:` the name, `data:` the event. The first message is `hello`. Send the "
                "last id as `Last-Event-ID`, or in the query as `lastEventId`, to get exactly what you missed. `reset` "
                "means that some of that was deleted."
            ),
            **stream,
        },
        "jobEvents": {
            "address": "/jobs/{jobId}/events",
            "title": "Server-sent events of one job",
            "description": "For `Accept: text/event-stream`: from the job's first event on.",
            "parameters": {"jobId": {"description": "The job's id, a UUID."}},
            **stream,
        },
        "socket": websocket.channel(),
    }


def _operations() -> dict[str, Any]:
    return {
        "sendResults": _sends("results", "An accepted event, after it is in the view."),
        "sendReplies": _sends("replies", "An accepted event of a job with `reply_to`."),
        "streamEvents": _sends("events", "Events in the order of the tape.", StreamQuery),
        "streamJobEvents": _sends("jobEvents", "Events of one job.", JobEventsQuery),
        **websocket.operations(),
    }


def _sends(channel: str, summary: str, query: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return an operation that sends: over HTTP with the model ``query``, otherwise over AMQP."""
    bindings: dict[str, Any] = {"amqp": {"deliveryMode": 2, "timestamp": True, "bindingVersion": "0.3.0"}}
    if query is not None:
        bindings = {"http": {"method": "GET", "query": query.model_json_schema(), "bindingVersion": "0.3.0"}}
    reference = {"$ref": f"#/channels/{channel}"}
    return {"action": "send", "channel": reference, "summary": summary, "bindings": bindings}


def _messages(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}
