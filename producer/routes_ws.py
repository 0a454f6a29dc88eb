"""``/ws``: what happens, over a WebSocket."""

import logging
import traceback
from contextlib import suppress
from typing import Final

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from jobtape.producer import ws_access
from jobtape.producer.answers import one_line
from jobtape.producer.outlet import LAST_WORDS, Outlet, Stalled
from jobtape.producer.problems import Problem
from jobtape.producer.refusals import TooBusy
from jobtape.producer.ws_connection import TRY_AGAIN, Connection, Left
from jobtape.producer.ws_requests import POLICY, Unfit

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
    except (Left, WebSocketDisconnect, OSError):
        return
    except Exception as error:  # noqa: BLE001  # whatever it is, the client gets a code and the log the place
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("/ws failed\n%s%s", frames, one_line(repr(error)))
        code, reason = FAILED, "the reason is in the log of the API"
    with suppress(Stalled, RuntimeError, OSError):  # it may be closed by now
        await Outlet(lambda _: socket.close(code, reason), LAST_WORDS).send(None)


async def _until_closed(socket: WebSocket) -> tuple[int, str]:
    """With which code, and why, it is to be closed."""
    if (objection := ws_access.objection(socket)) is not None:
        return POLICY, objection
    try:
        producer = socket.app.state.find_producer()
        with producer.listeners.place("websocket"):
            limits = producer.limits
            connection = Connection(socket, producer.listeners, keep_alive=limits.keep_alive, stall=limits.stall)
            return await _run(connection, limits.stall)
    except Problem:
        return TRY_AGAIN, "Jobtape does not run in this application"
    except TooBusy:
        return TRY_AGAIN, "there is no place: too many listen here already, or this process is about to stop"


async def _run(connection: Connection, stall: float) -> tuple[int, str]:
    try:
        await connection.run()
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            match error:
                case Unfit():
                    return error.code, error.reason
                case Stalled():
                    log.info("a WebSocket client has read nothing for %g s: its connection ends", stall)
                    return TRY_AGAIN, "you do not read: connect again, and resume"
        raise group.exceptions[0] from None
    return STOPPING, "this process is about to stop: connect again, and resume"
