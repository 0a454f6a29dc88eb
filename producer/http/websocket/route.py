"""``/ws``: events over a WebSocket."""

import logging
from contextlib import suppress

from fastapi import APIRouter, WebSocket, status
from starlette.websockets import WebSocketDisconnect

from jobtape.producer.http.middleware import described
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.websocket import access
from jobtape.producer.http.websocket.connection import ClientLeft, WebSocketConnection
from jobtape.producer.http.websocket.requests import InvalidRequest
from jobtape.producer.live.client_writer import LAST_WORDS, ClientStalled, ClientWriter
from jobtape.producer.service.errors import TooBusy

log = logging.getLogger(__name__)

router = APIRouter()


@router.websocket("/ws")
async def live(socket: WebSocket) -> None:
    """Serve a connection. A refused one is accepted and then closed with a code and a reason, because a browser shows
    those, and does not show the response to a refused upgrade.
    """
    await socket.accept(subprotocol=access.subprotocol(socket))
    try:
        code, reason = await _serve(socket)
    except (ClientLeft, WebSocketDisconnect, OSError):
        return
    except Exception as error:  # noqa: BLE001  # any error gets a code and an entry in the log
        log.error("/ws failed: %s", described(error))
        code, reason = status.WS_1011_INTERNAL_ERROR, "the reason is in the log of the API"
    with suppress(ClientStalled, RuntimeError, OSError):  # it may be closed already
        await ClientWriter(lambda _: socket.close(code, reason), LAST_WORDS).send(None)


async def _serve(socket: WebSocket) -> tuple[int, str]:
    """Serve the connection until its end. Return the code and the reason with which to close it."""
    if (reason := access.reason_to_refuse(socket)) is not None:
        return status.WS_1008_POLICY_VIOLATION, reason
    try:
        producer = socket.app.state.find_producer()
        limits = producer.limits
        with producer.listeners.place("websocket"):
            await WebSocketConnection(
                socket, producer.listeners, keep_alive=limits.keep_alive, stall=limits.stall
            ).run()
    except Problem:
        return status.WS_1013_TRY_AGAIN_LATER, "Jobtape is not running in this application"
    except TooBusy:
        return (
            status.WS_1013_TRY_AGAIN_LATER,
            "this process has too many listeners or is stopping: try again later",
        )
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            match error:
                case InvalidRequest():
                    return error.code, error.reason
                case ClientStalled():
                    log.info("closed the WebSocket of a client that read nothing for %g s", limits.stall)
                    return status.WS_1013_TRY_AGAIN_LATER, "you do not read: connect again and resume"
        raise group.exceptions[0] from None
    return status.WS_1012_SERVICE_RESTART, "this process is about to stop: connect again and resume"
