"""Decides who may open a WebSocket: pages of the same host or of allowed origins, with the API key if there is one.

A browser lets any page connect to any host and sends the page's origin; other clients send no origin. A page cannot set
headers, so it may send the key as a subprotocol: ``new WebSocket(url, ["jobtape", "bearer." + key])``, with the key in
base64url. Unlike a URL, subprotocols do not appear in logs.
"""

from base64 import urlsafe_b64decode
from typing import Final
from urllib.parse import urlsplit

from starlette.websockets import WebSocket

from jobtape.producer.http.dependencies import bearer_token, is_key

SUBPROTOCOL: Final = "jobtape"
BEARER: Final = "bearer."


def subprotocol(socket: WebSocket) -> str | None:
    """Return the subprotocol to accept: ours, if the client offers it."""
    return SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None


def reason_to_refuse(socket: WebSocket) -> str | None:
    """Return why the connection is refused, in at most 123 bytes (the limit of a close frame); None when it is not."""
    origin = socket.headers.get("origin")
    if origin is not None and not _same_host(origin, socket) and origin not in socket.app.state.origins:
        return "pages of this origin may not connect: name it in JOBTAPE_CORS_ORIGINS"
    key: str | None = socket.app.state.api_key
    if key is None or is_key(_sent_key(socket), key):
        return None
    return "send the API key, as Authorization: Bearer or as the subprotocol bearer.<base64url>"


def _same_host(origin: str, socket: WebSocket) -> bool:
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return netloc != "" and _without_port(netloc) == _without_port(socket.headers.get("host", ""))


def _without_port(host: str) -> str:
    """Return ``host`` without a default port. Both are removed, because a proxy may hide which scheme was used."""
    return host.lower().removesuffix(":80").removesuffix(":443")


def _sent_key(socket: WebSocket) -> bytes | None:
    sent = bearer_token(socket)
    if sent is not None or len(socket.headers.getlist("authorization")) > 1:
        return sent
    for offered in socket.scope.get("subprotocols", ()):
        if offered.startswith(BEARER):
            text = offered.removeprefix(BEARER)
            try:
                return urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except ValueError:
                return None
    return None
