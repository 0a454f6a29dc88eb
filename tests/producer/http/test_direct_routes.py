"""Frequent requests are answered without FastAPI's router, and as by its routes."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from jobtape.producer.http import direct_routes
from jobtape.producer.http.routes.jobs import jobs, submit
from jobtape.settings import Settings
from tests.producer.running_api import Api, api

pytestmark = pytest.mark.anyio

ID = "0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"
ROUTES = [
    ("POST", "/jobs", {"type": "nothing", "payload": {}}),
    ("POST", "/jobs/batch", []),
    ("GET", f"/jobs/{ID}", None),
]


def _routes() -> Iterator[APIRoute]:
    for module in (submit, jobs):
        yield from (route for route in module.router.routes if isinstance(route, APIRoute))


def test_direct_endpoints_are_those_of_the_routes() -> None:
    known = {(method, route.path): route.endpoint for route in _routes() for method in route.methods or ()}
    for path, endpoint in direct_routes.POST.items():
        assert known["POST", path] is endpoint
    assert known["GET", "/jobs/{job_id}"] is jobs.get_job


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_answers_are_those_of_the_router(
    projected: Api, method: str, path: str, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for direct in (True, False):
        if not direct:
            monkeypatch.setattr(direct_routes, "_endpoint", lambda _: None)
        answer = await projected.client.request(method, path, json=body)
        answers.append((answer.status_code, dict(answer.headers), answer.content))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_key_is_required(settings: Settings, method: str, path: str, body: Any) -> None:
    async with api(settings.model_copy(update={"api_key": "a-key-of-the-test"}), ready=False) as served:
        answer = await served.client.request(method, path, json=body)
    assert answer.status_code == 401
