"""The AsyncAPI document matches the official schema, and real messages match the document."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from websockets.asyncio.client import ClientConnection, connect

from jobtape.producer.http.asyncapi.document import document_of
from jobtape.schemas.events import EVENT_NAMES, encode
from jobtape.schemas.messages.delivered_event import encode_delivered
from jobtape.schemas.topology import Topology
from tests.producer.live_api import LiveApi
from tests.producer.running_api import Api
from tests.view.samples import record, submitted

pytestmark = pytest.mark.anyio

OFFICIAL = json.loads((Path(__file__).parents[2] / "data" / "asyncapi" / "3.0.0.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made = document_of(Topology("shop"), "jobs.example.org", "/jobtape", "https", secured=True)
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


def referred(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/"), reference
    found: Any = document
    for part in reference[2:].split("/"):
        found = found[part]
    return found


def references(value: Any) -> set[str]:
    match value:
        case {"$ref": str(reference)}:
            return {reference}
        case dict():
            return {reference for child in value.values() for reference in references(child)}
        case list():
            return {reference for child in value for reference in references(child)}
    return set()


def faults(schema: Any, value: Any, document: dict[str, Any]) -> list[str]:
    """Return the violations of a payload's schema by a value."""
    whole = {**schema, "components": document["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_document_is_valid(document: dict[str, Any]) -> None:
    official = Draft7Validator(OFFICIAL)
    assert [f"{error.json_path}: {error.message}" for error in official.iter_errors(document)] == []
    broken = document | {"channels": {"results": {"adress": "x"}}}
    assert not official.is_valid(broken), "the schema refuses a wrong document"


def test_references_resolve(document: dict[str, Any]) -> None:
    for reference in references(document):
        referred(document, reference)
    for operation in document["operations"].values():
        of_channel = referred(document, operation["channel"]["$ref"])["messages"]
        for message in operation.get("messages", ()):
            assert message["$ref"].rpartition("/")[2] in of_channel


def test_events_match_their_schemas(document: dict[str, Any]) -> None:
    messages = document["components"]["messages"]
    assert set(EVENT_NAMES) <= set(messages)
    event = json.loads(encode_delivered(encode(submitted(1)).decode(), 7))
    assert faults(messages["submitted"]["payload"], event, document) == []
    for name in EVENT_NAMES:
        assert faults(messages[name]["payload"], {"type": 7}, document) != []
    assert faults(messages["submitted"]["headers"], {"cursor": 7}, document) != []


async def test_websocket_messages_match_document(live_sqlite: LiveApi, document: dict[str, Any]) -> None:
    async def send(socket: ClientConnection, **message: Any) -> None:
        await socket.send(json.dumps(message))

    record(live_sqlite.store, submitted(1))
    received: set[str] = set()
    async with connect(f"ws{live_sqlite.url.removeprefix('http')}/ws") as socket, asyncio.timeout(30):
        await send(socket, type="subscribe", id="a", after="first")
        await send(socket, type="subscribe", id="b", after=2**62)
        await send(socket, type="subscribe", id="c", events=["done"])
        while received != {"subscribed", "event", "reset", "error", "unsubscribed", "keep-alive"}:
            message = json.loads(await socket.recv())
            schema = document["components"]["messages"][f"socket.{message['type']}"]["payload"]
            assert faults(schema, message, document) == [], message
            received.add(message["type"])
            if message["type"] == "reset":
                await send(socket, type="unsubscribe", id="b")


async def test_document_needs_no_key(served: Api) -> None:
    answer = await served.client.get("/asyncapi.json")
    document = answer.json()
    assert (answer.status_code, document["asyncapi"]) == (200, "3.0.0")
    assert document["servers"]["api"] == {"host": "api", "protocol": "http"}
    assert "security" not in answer.text, "this API has no key"
    exchange = document["channels"]["results"]["bindings"]["amqp"]["exchange"]
    assert exchange["name"] == served.producer.topology.results.name
    assert Draft7Validator(OFFICIAL).is_valid(document)
