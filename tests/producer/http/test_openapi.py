"""The OpenAPI document: problems instead of FastAPI's errors, and examples that work."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jobtape.app import create_app
from jobtape.producer.http.problems import KINDS
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, without_broker

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(without_broker("sqlite://"), [add]).openapi()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_references_resolve(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in references(document)} <= set(schemas)
    assert "HTTPValidationError" not in schemas


def test_document_lists_all_paths(document: dict[str, Any]) -> None:
    assert {(method, path) for path, item in document["paths"].items() for method in item} == {
        ("post", "/jobs"),
        ("post", "/jobs/batch"),
        ("get", "/jobs"),
        ("get", "/jobs/{job_id}"),
        ("get", "/jobs/{job_id}/events"),
        ("get", "/jobs/{job_id}/results"),
        ("get", "/scaling"),
        ("post", "/jobs/{job_id}/cancel"),
        ("post", "/jobs/{job_id}/release"),
        ("post", "/jobs/{job_id}/redrive"),
        ("post", "/redrives"),
        ("get", "/redrives/{job_id}"),
        ("post", "/cancels"),
        ("post", "/replays"),
        ("post", "/queues/{queue}/pause"),
        ("post", "/queues/{queue}/resume"),
        ("post", "/job-types/{name}/pause"),
        ("post", "/job-types/{name}/resume"),
        ("post", "/flows"),
        ("get", "/jobs/{job_id}/nodes"),
        ("post", "/jobs/{job_id}/fork"),
        ("post", "/jobs/{job_id}/signals/{name}"),
        ("put", "/schedules/{name}"),
        ("get", "/schedules"),
        ("get", "/schedules/{name}"),
        ("delete", "/schedules/{name}"),
        ("post", "/schedules/{name}/pause"),
        ("post", "/schedules/{name}/resume"),
        ("post", "/schedules/{name}/trigger"),
        ("put", "/schedules"),
        ("get", "/schedules/{name}/ticks"),
        ("post", "/schedules/{name}/backfill"),
        ("get", "/limits"),
        ("put", "/limits/{name}"),
        ("delete", "/limits/{name}"),
        ("get", "/events"),
        ("get", "/events/positions"),
        ("get", "/events/histogram"),
        ("get", "/stats"),
        ("get", "/failures"),
        ("get", "/dead"),
        ("get", "/dead/{number}"),
        ("get", "/job-types"),
        ("get", "/workers"),
        ("get", "/subscriptions"),
        ("get", "/webhooks"),
        ("post", "/webhooks"),
        ("post", "/webhooks/reencrypt"),
        ("get", "/webhooks/{webhook_id}"),
        ("patch", "/webhooks/{webhook_id}"),
        ("delete", "/webhooks/{webhook_id}"),
        ("post", "/webhooks/{webhook_id}/rotate"),
        ("post", "/webhooks/{webhook_id}/test"),
        ("post", "/webhooks/{webhook_id}/replay"),
        ("get", "/keys"),
        ("post", "/keys"),
        ("post", "/keys/{key_id}/rotate"),
        ("delete", "/keys/{key_id}"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
        ("get", "/metrics"),
    }


def secured(document: dict[str, Any]) -> set[str]:
    """The paths whose operations require a key."""
    return {path for path, item in document["paths"].items() for each in item.values() if each.get("security")}


OPEN = {"/health/live", "/health/ready"}


def test_document_requires_configured_key() -> None:
    plain, locked = (create_app(without_broker("sqlite://", api_key=key), [add]) for key in (None, "0123456789"))
    assert secured(plain.openapi()) == set()
    assert "securitySchemes" not in plain.openapi()["components"]
    assert "security" not in plain.openapi()
    document = locked.openapi()
    assert secured(document) == set(document["paths"]) - OPEN
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for app in (plain, locked):
        named = [each["name"].lower() for item in app.openapi()["paths"].values() for each in parameters(item)]
        assert "authorization" not in named, "it is a security scheme and not a parameter"


def parameters(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operation in item.values():
        yield from operation.get("parameters", ())


async def test_asyncapi_requires_configured_key(sqlite_url: str) -> None:
    for key in (None, "0123456789"):
        app = create_app(without_broker(sqlite_url, api_key=key), [add])
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client,
        ):
            document = (await client.get("/asyncapi.json")).json()
        claims = ["api", "socket"] if key else []
        assert [name for name, server in document["servers"].items() if "security" in server] == claims
        assert ("securitySchemes" in document["components"]) == (key is not None)


def test_documented_errors_are_problems(document: dict[str, Any]) -> None:
    shown: set[str] = set()
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and not path.startswith("/health"):
                    content = answer["content"]["application/problem+json"]
                    assert content["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
                    assert all(example["value"]["status"] == int(status) for example in content["examples"].values())
                    shown |= set(content["examples"])
    # the router's own, and the one that no client should rely on
    assert set(KINDS) - shown == {"method-not-allowed", "internal"}


async def test_examples_are_accepted(served: Api, rig: Rig, document: dict[str, Any]) -> None:
    content = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert (await served.client.post("/jobs", json=example["value"])).status_code == 202
    for kind, content in document["paths"]["/jobs/batch"]["post"]["requestBody"]["content"].items():
        example = content["example"]
        body = example if isinstance(example, str) else json.dumps(example)
        answer = await served.client.post("/jobs/batch", content=body, headers={"Content-Type": kind})
        assert answer.json()["accepted"] == 2


async def test_responses_have_documented_fields(projected: Api, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    job = await projected.submit(x=1)
    assert list(job) == list(schemas["JobOut"]["properties"])
    page = (await projected.client.get("/jobs")).json()
    assert list(page) == list(schemas["JobPage"]["properties"])
    batch = (await projected.client.post("/jobs/batch", json=[{"type": "add", "payload": {"x": 1}}])).json()
    assert list(batch) == list(schemas["BatchOut"]["properties"])
    types = (await projected.client.get("/job-types")).json()["items"]
    own = [each["name"] for each in types if not each["name"].startswith("jobtape.")]
    assert own == ["add", "keep", "order.place"]
    assert list(types[0]) == list(schemas["JobTypeOut"]["properties"])
    assert types[0]["schemas"]["payload"]["required"] == ["x"]
    readiness = (await projected.client.get("/health/ready")).json()
    assert list(readiness) == list(schemas["ReadinessOut"]["properties"])
    assert list(readiness["parts"]["broker"]) == list(schemas["PartStatus"]["properties"])
    assert list(readiness["workers"]["default"]) == list(schemas["Workers"]["properties"])


async def test_docs_page(served: Api) -> None:
    """FastAPI serves the document of this application, and its page."""
    assert "HTTPValidationError" not in (await served.client.get("/openapi.json")).text
    answer = await served.client.get("/docs")
    assert answer.status_code == 200
    assert "text/html" in answer.headers["content-type"]
