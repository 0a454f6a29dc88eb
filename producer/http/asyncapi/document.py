"""``/asyncapi.json``: the events that this installation delivers, as an AsyncAPI 3.0 document.

It is generated from the event models, the topology and the query models of the routes, so it always matches them.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from jobtape.producer.http.asyncapi import websocket as asyncapi_socket
from jobtape.producer.http.asyncapi.event_examples import examples
from jobtape.producer.http.asyncapi.messages import event_messages, event_schemas
from jobtape.producer.http.dependencies import RunningProducer
from jobtape.producer.http.representation import mount_path
from jobtape.producer.http.stream_parameters import JobEventsQuery, StreamQuery
from jobtape.schemas.events import EVENT_NAMES, RELAYED_EVENTS
from jobtape.schemas.job import QUEUE_PATTERN
from jobtape.schemas.topology import Topology, reply_key, result_key

SPECIFICATION: Final = "3.0.0"
_SCHEMES: Final = {"key": {"type": "http", "scheme": "bearer", "description": "JOBTAPE_API_KEY"}}
JOB_ID: Final = {"jobId": {"description": "The job's id, a UUID."}}

router = APIRouter(include_in_schema=False)
"""It needs no API key, like ``/openapi.json``, because it contains only names."""


@router.get("/asyncapi.json")
async def asyncapi(request: Request, producer: RunningProducer) -> Response:
    """Return the document, with the address of this request as the server."""
    secured = request.app.state.api_key is not None
    document = document_of(
        producer.topology, request.url.netloc, mount_path(request), request.url.scheme, secured=secured
    )
    return Response(to_json(document), media_type="application/json")


def document_of(topology: Topology, host: str, prefix: str, scheme: str, *, secured: bool) -> dict[str, Any]:
    """Return the document for the API at ``host``, ``prefix`` and ``scheme``. ``secured``: the API needs a key."""
    found = examples(topology.source)
    return {
        "asyncapi": SPECIFICATION,
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
            "messages": event_messages(found) | asyncapi_socket.messages(found["succeeded"]),
            **({"securitySchemes": _SCHEMES} if secured else {}),
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
    relayed = _messages(names)
    event = {"description": "What happened.", "enum": names}
    return {
        "results": {
            "address": result_key("{event}", "{jobType}"),
            "title": "Results over AMQP",
            "description": (
                "Bind a queue of your own: `succeeded.#`, `*.mail.send`, `failed.billing.#`. JOBTAPE_RELAY_EVENTS "
                "selects the events: the final ones (succeeded, failed, cancelled), or all."
            ),
            "servers": [{"$ref": "#/servers/broker"}],
            "parameters": {"event": event, "jobType": {"description": "The job type, whose dots are the key's."}},
            "messages": relayed,
            "bindings": amqp,
        },
        "replies": {
            "address": reply_key("{replyTo}"),
            "title": "Replies over AMQP",
            "description": "A second copy of the events of jobs that were submitted with this `reply_to`.",
            "servers": [{"$ref": "#/servers/broker"}],
            "parameters": {"replyTo": {"description": f"A name that matches {QUEUE_PATTERN}."}},
            "messages": relayed,
            "bindings": amqp,
        },
        "events": {
            "address": "/events",
            "title": "Server-sent events",
            "description": (
                "`id:` is the cursor, `event:` the name, `data:` the event. First comes `hello`. Send the last id as "
                "`Last-Event-ID`, or in the query as `lastEventId`, to get exactly what was missed. `reset` means that "
                "some of it was deleted."
            ),
            "servers": [{"$ref": "#/servers/api"}],
            "messages": _messages(EVENT_NAMES) | _messages(("hello", "reset")),
        },
        "jobEvents": {
            "address": "/jobs/{jobId}/events",
            "title": "Server-sent events of one job",
            "description": "For `Accept: text/event-stream`: from the job's first event on.",
            "servers": [{"$ref": "#/servers/api"}],
            "parameters": JOB_ID,
            "messages": _messages(EVENT_NAMES) | _messages(("hello", "reset")),
        },
        "socket": asyncapi_socket.channel(),
    }


def _operations() -> dict[str, Any]:
    return {
        "tellResults": _sends("results", "An accepted event, after it is in the view."),
        "tellReplies": _sends("replies", "An accepted event of a job with `reply_to`."),
        "streamEvents": _sends("events", "Events, in the tape's order.", StreamQuery.model_json_schema()),
        "streamJobEvents": _sends("jobEvents", "Events of one job.", JobEventsQuery.model_json_schema()),
        **asyncapi_socket.operations(),
    }


def _sends(channel: str, summary: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    if query is None:
        operation["bindings"] = {"amqp": {"deliveryMode": 2, "timestamp": True, "bindingVersion": "0.3.0"}}
    else:
        operation["bindings"] = {"http": {"method": "GET", "query": query, "bindingVersion": "0.3.0"}}
    return operation


def _messages(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}
