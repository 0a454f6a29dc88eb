"""The OpenAPI document tells the truth: our problems, and examples that work."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jobtape.app import create_app
from jobtape.producer.http.problems import KINDS
from jobtape.settings import Settings
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api

pytestmark = pytest.mark.anyio


@pytest.fixture
async def document(served: Api) -> dict[str, Any]:
    answer = await served.client.get("/openapi.json")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in references(document)} <= set(schemas)
    assert "HTTPValidationError" not in schemas


async def test_all_paths_are_there(document: dict[str, Any]) -> None:
    assert {(method, path) for path, item in document["paths"].items() for method in item} == {
        ("post", "/jobs"),
        ("post", "/jobs/batch"),
        ("get", "/jobs"),
        ("get", "/jobs/{job_id}"),
        ("get", "/jobs/{job_id}/events"),
        ("post", "/jobs/{job_id}/cancel"),
        ("post", "/jobs/{job_id}/redrive"),
        ("post", "/redrives"),
        ("post", "/replays"),
        ("get", "/events"),
        ("get", "/dead"),
        ("get", "/dead/{number}"),
        ("get", "/job-types"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
        ("get", "/metrics"),
    }


def secured(document: dict[str, Any]) -> set[str]:
    """The paths whose operations want a key."""
    return {path for path, item in document["paths"].items() for each in item.values() if each.get("security")}


OPEN = {"/health/live", "/health/ready"}


async def test_a_key_is_claimed_where_there_is_one(settings: Settings) -> None:
    plain, locked = (create_app(settings.model_copy(update={"api_key": key}), [add]) for key in (None, "0123456789"))
    assert secured(plain.openapi()) == set()
    assert "securitySchemes" not in plain.openapi()["components"]
    assert "security" not in plain.openapi()
    document = locked.openapi()
    assert secured(document) == set(document["paths"]) - OPEN
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for app in (plain, locked):
        named = [each["name"].lower() for item in app.openapi()["paths"].values() for each in parameters(item)]
        assert "authorization" not in named, "it is a scheme, and no parameter"


def parameters(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operation in item.values():
        yield from operation.get("parameters", ())


async def test_asyncapi_claims_a_key_where_there_is_one(settings: Settings) -> None:
    for key in (None, "0123456789"):
        app = create_app(settings.model_copy(update={"api_key": key}), [add])
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client,
        ):
            document = (await client.get("/asyncapi.json")).json()
        claims = ["api", "socket"] if key else []
        assert [name for name, server in document["servers"].items() if "security" in server] == claims
        assert ("securitySchemes" in document["components"]) == (key is not None)


async def test_every_failure_is_a_problem(document: dict[str, Any]) -> None:
    shown: set[str] = set()
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and not path.startswith("/health"):
                    content = answer["content"]["application/problem+json"]
                    assert content["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
                    assert all(example["value"]["status"] == int(status) for example in content["examples"].values())
                    shown |= set(content["examples"])
    # the router's own, and what nobody should rely on
    assert set(KINDS) - shown == {"method-not-allowed", "internal"}


async def test_the_examples_are_accepted(served: Api, rig: Rig, document: dict[str, Any]) -> None:
    content = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert (await served.client.post("/jobs", json=example["value"])).status_code == 202
    for kind, content in document["paths"]["/jobs/batch"]["post"]["requestBody"]["content"].items():
        example = content["example"]
        body = example if isinstance(example, str) else json.dumps(example)
        answer = await served.client.post("/jobs/batch", content=body, headers={"Content-Type": kind})
        assert answer.json()["accepted"] == 2


async def test_answers_have_the_fields_they_promise(kept: Api, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    job = await kept.submit(x=1)
    assert list(job) == list(schemas["JobOut"]["properties"])
    page = (await kept.client.get("/jobs")).json()
    assert list(page) == list(schemas["JobPage"]["properties"])
    batch = (await kept.client.post("/jobs/batch", json=[{"type": "add", "payload": {"x": 1}}])).json()
    assert list(batch) == list(schemas["BatchOut"]["properties"])
    types = (await kept.client.get("/job-types")).json()["items"]
    own = [each["name"] for each in types if not each["name"].startswith("jobtape.")]
    assert own == ["add", "keep", "order.place"]
    assert list(types[0]) == list(schemas["JobTypeOut"]["properties"])
    assert types[0]["schemas"]["payload"]["required"] == ["x"]
    readiness = (await kept.client.get("/health/ready")).json()
    assert list(readiness) == list(schemas["ReadinessOut"]["properties"])
    assert list(readiness["parts"]["broker"]) == list(schemas["PartStatus"]["properties"])
    assert list(readiness["workers"]["default"]) == list(schemas["Workers"]["properties"])


async def test_the_docs_page(served: Api) -> None:
    answer = await served.client.get("/docs")
    assert answer.status_code == 200
    assert "text/html" in answer.headers["content-type"]
