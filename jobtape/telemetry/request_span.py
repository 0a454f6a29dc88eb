"""The span of a request, named by OpenTelemetry's semantic conventions for HTTP.

FastAPI can make these spans too, at twice the processor time: it wraps each request, also those without a span.
"""

from collections.abc import Callable, MutableMapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from jobtape.telemetry.work import ROUTE, Send

Scope = MutableMapping[str, Any]
Start = Callable[[str, SpanContext | None, SpanKind, dict[str, AttributeValue]], Span]

_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SERVER_ERROR: Final = 500


class RequestSpan:
    """A span that begins with the instance. It is the current one inside of a ``with`` block, and ends with it.

    ``start`` starts a span. ``scope``: of ASGI. At the end it has the route: at ``ROUTE``, or where FastAPI's router
    puts it. ``parent``: the span above. ``method``: that of the client.
    """

    def __init__(self, start: Start, scope: Scope, parent: SpanContext | None, *, method: str) -> None:
        self._scope = scope
        self._status: int | None = None
        if scope["type"] == "websocket":
            self._name = "WS"
        else:
            self._name = method if method in _METHODS else "HTTP"
        self._span = start(self._name, parent, SpanKind.SERVER, _attributes(scope, method))

    def noting_status(self, send: Send) -> Send:
        """Return ``send`` of ASGI, which notes the status of the response."""

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
            await send(message)

        return noting

    def __enter__(self) -> "RequestSpan":
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        contexts.detach(self._token)
        found: dict[str, AttributeValue] = {}
        route = self._scope.get(ROUTE) or getattr(self._scope.get("route"), "path_format", None)
        if route:
            self._span.update_name(f"{self._name} {route}")
            found["http.route"] = route
        if self._status is not None:
            found["http.response.status_code"] = self._status
        if error_type is not None:
            found["error.type"] = error_type.__qualname__
        elif self._status is not None and self._status >= _SERVER_ERROR:
            found["error.type"] = str(self._status)
        if "error.type" in found:
            self._span.set_status(StatusCode.ERROR)
        self._span.set_attributes(found)
        self._span.end()


def _attributes(scope: Scope, method: str) -> dict[str, AttributeValue]:
    host = next((value for name, value in scope["headers"] if name == b"host"), None)
    scheme = scope.get("scheme", "http")
    found = {"url.scheme": scheme, "url.path": scope["path"], **_server(host, scheme)}
    if scope["type"] == "websocket":
        found["network.protocol.name"] = "websocket"
    else:
        found["network.protocol.version"] = scope["http_version"]
        found["http.request.method"] = method if method in _METHODS else "_OTHER"
        if method not in _METHODS:
            found["http.request.method_original"] = method
    if query := scope.get("query_string"):
        found["url.query"] = query.decode("latin-1")
    return found


@lru_cache(64)
def _server(host: bytes | None, scheme: str) -> dict[str, AttributeValue]:
    """Return the attributes of a header Host; none if it is not valid."""
    try:
        url = urlsplit(f"//{(host or b'').decode('latin-1')}")
        address, port = url.hostname, url.port or _PORTS.get(scheme)
    except ValueError:
        return {}
    if not address or url.username is not None or url.path or url.query or url.fragment:
        return {}
    return {"server.address": address} if port is None else {"server.address": address, "server.port": port}
