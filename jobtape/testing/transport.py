"""Requests to the REST API of an installation whose event loop is in another thread."""

from functools import lru_cache

import httpx
from fastapi import FastAPI

from jobtape.app import create_app
from jobtape.settings import Settings
from jobtape.testing.loop import LoopThread

BASE_URL = "http://jobtape"


class LoopTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Answers requests by the application, on the loop of ``thread``. An answer has ended when it arrives."""

    def __init__(self, thread: LoopThread, app: FastAPI) -> None:
        self._thread = thread
        self._asgi = httpx.ASGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        return await self._thread.call(self._answer, request, body)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._thread.call_blocking(self._answer, request, request.read())

    async def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        inner = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        answer = await self._asgi.handle_async_request(inner)
        content = await answer.aread()
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() != b"content-encoding"]
        return httpx.Response(answer.status_code, headers=headers, content=content)


def api_for(settings: Settings) -> FastAPI:
    """Return the REST API. It is made once in a process, because that takes a tenth of a second."""
    return _api(settings.api_key, settings.webhook_allow, settings.dashboard)


@lru_cache(4)
def _api(*of: object) -> FastAPI:
    from jobtape.settings import read_settings  # noqa: PLC0415 - not at import

    api_key, webhook_allow, dashboard = of
    return create_app(read_settings(api_key=api_key, webhook_allow=webhook_allow, dashboard=dashboard))
