"""What spans are about, without OpenTelemetry."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple, Protocol

ROUTE: Final = "jobtape.route"
"""In the ASGI scope of a request: its route, if FastAPI's router does not answer it."""
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""Of ASGI."""


class Work(NamedTuple):
    """The attributes of a span. ``event_id``: of the message; None until it is made."""

    job_id: str
    job_type: str
    run: int = 1
    attempt: int = 1
    correlation_id: str | None = None
    event_id: str | None = None


class ExecutionSpan(Protocol):
    """The span of one execution or placement. ``traceparent``: its context, for the events that it publishes."""

    traceparent: str
    span: Any

    def end(self, error_type: str | None = None) -> None:
        """End the span. ``error_type``: the class of the error if it failed. An error's text may contain a payload."""
