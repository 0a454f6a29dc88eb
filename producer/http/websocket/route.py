"""``/ws``: what happens, over a WebSocket."""

import logging
import traceback
from contextlib import suppress
from typing import Final

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from jobtape.producer.http.error_handlers import one_line
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.websocket import access as ws_access
from jobtape.producer.http.websocket.connection import TRY_AGAIN, ClientLeft, WebSocketConnection
from jobtape.producer.http.websocket.requests import POLICY, InvalidRequest
from jobtape.producer.live.client_writer import LAST_WORDS, ClientStalled, ClientWriter
from jobtape.producer.service.errors import TooBusy

log = logging.getLogger(__name__)

STOPPING: Final = 1012
FAILED: Final = 1011

router = APIRouter()


@router.websocket("/ws")
async def live(socket: WebSocket) -> None:
    """Refusals come as a close code with its reason, which a browser shows, unlike an answer without an upgrade."""
    await socket.accept(subprotocol=ws_access.subprotocol(socket))
    try:
        code, reason = await _until_closed(socket)
    except (ClientLeft, WebSocketDisconnect, OSError):
        return
    except Exception as error:  # noqa: BLE001  # whatever it is, the client gets a code and the log the place
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("/ws failed\n%s%s", frames, one_line(repr(error)))
        code, reason = FAILED, "the reason is in the log of the API"
    with suppress(ClientStalled, RuntimeError, OSError):  # it may be closed by now
        await ClientWriter(lambda _: socket.close(code, reason), LAST_WORDS).send(None)


async def _until_closed(socket: WebSocket) -> tuple[int, str]:
    """With which code, and why, it is to be closed."""
    if (objection := ws_access.objection(socket)) is not None:
        return POLICY, objection
    try:
        producer = socket.app.state.find_producer()
        with producer.listeners.place("websocket"):
            limits = producer.limits
            connection = WebSocketConnection(
                socket, producer.listeners, keep_alive=limits.keep_alive, stall=limits.stall
            )
            return await _run(connection, limits.stall)
    except Problem:
        return TRY_AGAIN, "Jobtape does not run in this application"
    except TooBusy:
        return TRY_AGAIN, "there is no place: too many listen here already, or this process is about to stop"


async def _run(connection: WebSocketConnection, stall: float) -> tuple[int, str]:
    try:
        await connection.run()
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            match error:
                case InvalidRequest():
                    return error.code, error.reason
                case ClientStalled():
                    log.info("a WebSocket client has read nothing for %g s: its connection ends", stall)
                    return TRY_AGAIN, "you do not read: connect again, and resume"
        raise group.exceptions[0] from None
    return STOPPING, "this process is about to stop: connect again, and resume"
