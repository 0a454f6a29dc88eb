"""The methods of a path: HEAD wherever there is a GET, OPTIONS everywhere, and ``Allow`` as RFC 9110 has it.

A route names one method, and a path may have several routes. So what a path takes is asked of all routes, by the same
matching that answers a request. HEAD is answered as GET, without the body: the same status, the same headers.
"""

from typing import Final

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobtape.producer.live.event_stream import HEAD

_ROUTED: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")


def methods_of(app: FastAPI, scope: Scope, path: str | None = None) -> tuple[str, ...]:
    """What ``app`` takes at the path of this request, or at ``path``, sorted; nothing where there is nothing.

    ``*`` is the server as a whole (RFC 9110, section 9.3.7).
    """
    path = scope["path"] if path is None else path
    root_path = scope.get("root_path", "")
    if path.removeprefix(root_path) in ("*", "/*"):
        return ("GET", "HEAD", "OPTIONS", "POST")
    found = {method for method in _ROUTED if _takes(app, method, path, root_path)}
    if "GET" in found:
        found.add("HEAD")
    return tuple(sorted(found | {"OPTIONS"})) if found else ()


def _takes(app: FastAPI, method: str, path: str, root_path: str) -> bool:
    scope: Scope = {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


class HeadAsGet:
    """The application sees a GET, and the client gets no body of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # A copy: the server's own scope still says HEAD, which it needs to know that no body comes.
        await self._app({**scope, "method": "GET", HEAD: True}, receive, without_body)
