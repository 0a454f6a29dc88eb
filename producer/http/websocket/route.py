"""``/ws``: events over a WebSocket, for pages of the same host or of allowed origins, with the API key if there is one.

A browser lets any page connect to any host and sends the page's origin; other clients send no origin. A page cannot set
headers, so it may send the key as a subprotocol: ``new WebSocket(url, ["jobtape", "bearer." + key])``, with the key in
base64url. Unlike a URL, subprotocols do not appear in logs.
"""

import logging
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket, status
from starlette.websockets import WebSocketDisconnect

from jobtape.producer.http.access import RULES, authorize, caller_of, until_refused
from jobtape.producer.http.middleware import described
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.websocket.connection import ClientLeft, WebSocketConnection
from jobtape.producer.http.websocket.requests import InvalidRequest
from jobtape.producer.live.client_writer import STOP_TIMEOUT, ClientStalled, ClientWriter
from jobtape.producer.service.errors import KeyRefused, TooBusy, TooManyRequests
from jobtape.schemas.access import Forbidden
from jobtape.schemas.errors import ViewUnavailable

log = logging.getLogger(__name__)

SUBPROTOCOL: Final = "jobtape"

router = APIRouter()


@router.websocket("/ws")
async def live(socket: WebSocket) -> None:
    """Serve a connection. A refused one is accepted and then closed with a code and a reason, because a browser shows
    those, and does not show the response to a refused upgrade.
    """
    await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None)
    try:
        code, reason = await _serve(socket)
    except (ClientLeft, WebSocketDisconnect, OSError):
        return
    except Exception as error:  # noqa: BLE001  # any error gets a code and an entry in the log
        log.error("/ws failed: %s", described(error))
        code, reason = status.WS_1011_INTERNAL_ERROR, "the reason is in the log of the API"
    with suppress(ClientStalled, RuntimeError, OSError):  # it may be closed already
        await ClientWriter(lambda _: socket.close(code, reason), STOP_TIMEOUT).send(None)


async def _serve(socket: WebSocket) -> tuple[int, str]:
    """Serve the connection until its end. Return the code and the reason with which to close it."""
    try:
        if (refusal := await _refusal(socket)) is not None:
            return refusal
        producer = socket.app.state.find_producer()
        limits = producer.limits
        with producer.listeners.admit("websocket"):
            await WebSocketConnection(
                socket,
                producer.listeners,
                caller_of(socket),
                keep_alive=limits.keepalive_interval,
                stall=limits.send_timeout,
            ).run(until_refused(socket))
    except Problem:
        return status.WS_1013_TRY_AGAIN_LATER, "Jobtape is not running in this application"
    except TooBusy:
        return (
            status.WS_1013_TRY_AGAIN_LATER,
            "this process has too many listeners or is stopping: try again later",
        )
    except KeyRefused:
        return status.WS_1008_POLICY_VIOLATION, "the API key was revoked or has expired: connect with another one"
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            match error:
                case InvalidRequest():
                    return error.code, error.reason
                case ClientStalled():
                    log.info("closed the WebSocket of a client that read nothing for %g s", limits.send_timeout)
                    return status.WS_1013_TRY_AGAIN_LATER, "you do not read: connect again and resume"
        raise group.exceptions[0] from None
    return status.WS_1012_SERVICE_RESTART, "this process is about to stop: connect again and resume"


async def _refusal(socket: WebSocket) -> tuple[int, str] | None:
    """Return the code and the reason, of at most 123 bytes (the limit of a close frame), with which the connection is
    refused; None when it is not.
    """
    origin = socket.headers.get("origin")
    if origin is not None and not _same_host(origin, socket) and origin not in socket.app.state.origins:
        return status.WS_1008_POLICY_VIOLATION, "pages of this origin may not connect: name it in JOBTAPE_CORS_ORIGINS"
    try:
        await authorize(socket, RULES["GET /events"])
    except KeyRefused:
        reason = "send the API key, as Authorization: Bearer or as the subprotocol bearer.<base64url>"
        return status.WS_1008_POLICY_VIOLATION, reason
    except Forbidden:
        return status.WS_1008_POLICY_VIOLATION, "this needs an API key with the scope read"
    except TooManyRequests:
        return status.WS_1013_TRY_AGAIN_LATER, "this API key has sent too many requests: try again later"
    except (ViewUnavailable, TooBusy):
        return status.WS_1013_TRY_AGAIN_LATER, "the API keys cannot be read: try again later"
    return None


def _same_host(origin: str, socket: WebSocket) -> bool:
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return netloc != "" and _without_port(netloc) == _without_port(socket.headers.get("host", ""))


def _without_port(host: str) -> str:
    """Return ``host`` without a default port. Both are removed, because a proxy may hide which scheme was used."""
    return host.lower().removesuffix(":80").removesuffix(":443")
