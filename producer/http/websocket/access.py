"""Who may open a WebSocket: pages of the same host or of named origins, and whoever has the key.

Browsers let any page connect to any host, and say which page it is (``Origin``); other clients send none. A page cannot
set headers either, so it may hand over the key as a subprotocol: ``new WebSocket(url, ["jobtape", "bearer." + key])``,
the key in base64url. Subprotocols stand in no URL and in no log.
"""

import binascii
from base64 import urlsafe_b64decode
from typing import Final
from urllib.parse import urlsplit

from starlette.websockets import WebSocket

from jobtape.producer.http.auth import bearer_token, is_key

SUBPROTOCOL: Final = "jobtape"
BEARER: Final = "bearer."


def subprotocol(socket: WebSocket) -> str | None:
    """The one to agree on: ours, if it was offered."""
    return SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None


def objection(socket: WebSocket) -> str | None:
    """Why the connection is refused, at most 123 bytes (a close frame has no more); None when it may stay."""
    if not _same_host(socket) and socket.headers.get("origin") not in socket.app.state.origins:
        return "pages of this origin may not connect: name it in JOBTAPE_CORS_ORIGINS"
    key: str | None = socket.app.state.api_key
    if key is None or is_key(_sent_key(socket), key):
        return None
    return "send the API key, as Authorization: Bearer or as the subprotocol bearer.<base64url>"


def _same_host(socket: WebSocket) -> bool:
    origin = socket.headers.get("origin")
    if origin is None:
        return True
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return netloc != "" and _bare(netloc) == _bare(socket.headers.get("host", ""))


def _bare(host: str) -> str:
    """Without the port that goes without saying; which scheme it was a proxy may have hidden."""
    return host.lower().removesuffix(":80").removesuffix(":443")


def _sent_key(socket: WebSocket) -> bytes | None:
    sent = bearer_token(socket)
    if sent is not None or len(socket.headers.getlist("authorization")) > 1:
        return sent
    for offered in socket.scope.get("subprotocols", ()):
        if offered.startswith(BEARER):
            return _decoded(offered.removeprefix(BEARER))
    return None


def _decoded(text: str) -> bytes | None:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
