"""Answers requests on the event loop that has the connection, whichever loop the server runs on.

An application that mounts the API may be served by another loop than the one that runs ``jobtape.lifespan``: a test
client with a loop for each request, a server in a thread, an adapter for WSGI.
"""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobtape import running
from jobtape.loop_calls import Handover, Lost, NotBegun
from jobtape.producer.http.problems import Problem
from jobtape.schemas.errors import JobtapeError


class Crossing:
    """``app``, run on the loop of what ``find`` gives, or where it is asked when ``find`` raises JobtapeError."""

    def __init__(self, app: ASGIApp, find: Callable[[], running.OnLoop]) -> None:
        self.app = app
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        there = self._other_loop() if scope["type"] != "lifespan" else None
        if there is None:
            await self.app(scope, receive, send)
            return
        here = Handover()

        async def receive_here() -> Message:
            return await here.call(receive)

        async def send_here(message: Message) -> None:
            await here.call(send, message)

        try:
            await there.call(self.app, scope, receive_here, send_here)
        except NotBegun as error:
            why = f"Jobtape runs on another event loop of this process, and {error}"
            if scope["type"] != "http":
                raise JobtapeError(f"the request was not taken: {why}") from None
            await Problem("not-running", why).response()(scope, receive, send)
        except Lost:
            raise JobtapeError("the request was broken off: Jobtape ended in this process") from None

    def _other_loop(self) -> Handover | None:
        try:
            found = self._find()
        except JobtapeError:
            return None
        return None if found.is_here() else found.handover
