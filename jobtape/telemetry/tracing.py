"""Passes the W3C trace context on, from a request to the events of its job, and makes spans where OpenTelemetry is on.

Theory of operation. Each event carries a ``traceparent``: the context in which it was published. Without OpenTelemetry
it is that of the request that submitted the job, and all events of the job carry the same. With it, each step makes a
span and passes that span's context on, so that a trace shows every step. ``spans`` makes the spans; nothing here
imports OpenTelemetry before ``enable``.
"""

import re
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from jobtape.telemetry.work import ExecutionSpan, Work

if TYPE_CHECKING:
    from jobtape.telemetry.request_span import RequestSpan
    from jobtape.telemetry.spans import Spans

HEADER: Final = "traceparent"
_FORMAT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_given: ContextVar[str | None] = ContextVar("jobtape_traceparent", default=None)
"""The context that a request or a handler's job has brought."""
_spans: "Spans | None" = None


def read_traceparent(text: str | None) -> str | None:
    """Return the trace context in a text, such as the value of a header, in version 00; None if it is not valid."""
    if text is None or (found := _FORMAT.fullmatch(text.strip())) is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(span, 16):
        return None
    return f"00-{trace}-{span}-{flags}"


def in_headers(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the trace context in the headers of an ASGI scope; None without exactly one that is valid."""
    found = [value for name, value in headers if name == b"traceparent"]
    return read_traceparent(found[0].decode("latin-1")) if len(found) == 1 else None


def request(scope: MutableMapping[str, Any], method: str) -> "RequestSpan | str | None":
    """Start the span of a request. Without one, return the trace context to pass on; None if it has none.

    ``scope``: of ASGI. ``method``: that of the client.
    """
    context = in_headers(scope["headers"])
    return context if _spans is None else _spans.request(scope, context, method)


def enable() -> None:
    """Make spans from now on, if a tracer provider is set in this process: by ``setup`` or by the application."""
    global _spans  # noqa: PLW0603 - one for the process, as OpenTelemetry has it
    if "opentelemetry.sdk" not in sys.modules and "opentelemetry.trace" not in sys.modules:
        return
    from jobtape.telemetry import spans  # noqa: PLC0415 - imports OpenTelemetry

    _spans = spans.Spans() if spans.is_configured() else None


def traceparent() -> str | None:
    """Return the context of the current span, or the one that the request or the handler's job has brought."""
    if _spans is not None and (current := _spans.current()) is not None:
        return current
    return _given.get()


def ids() -> tuple[str | None, str | None]:
    """Return trace id and span id of ``traceparent``."""
    context = traceparent()
    if context is None:
        return None, None
    _, trace, span, _ = context.split("-")
    return trace, span


@contextmanager
def within(context: str | None) -> Iterator[None]:
    """Make ``context`` the current one inside the block; None changes nothing."""
    if (context := read_traceparent(context)) is None:
        yield
        return
    token = _given.set(context)
    detach = None if _spans is None else _spans.attach(context)
    try:
        yield
    finally:
        if detach is not None:
            detach()
        _given.reset(token)


def enter_handler(context: str | None, span: ExecutionSpan | None = None) -> None:
    """Make the execution's span the current one in the context in which its handler runs, which ends with it.

    ``context``: that of the span. Without ``span``, as in a process of its own, the handler's spans are still below it.
    """
    context = read_traceparent(context)
    _given.set(context)
    if _spans is not None:
        _spans.enter(context, span)


def sending(destination: str, work: Work) -> AbstractContextManager[str | None]:
    """Return a block that is the span of a publish to ``destination``. Its value is the context for the event."""
    given = _given.get()
    return nullcontext(given) if _spans is None else _spans.sending(destination, work, given)


def placing(destination: str, work: Work, parent: str | None) -> ExecutionSpan | None:
    """Start the span of a publish below ``parent``, for callers that end it later. None if none is recorded."""
    return None if _spans is None else _spans.started("send", destination, work, read_traceparent(parent))


def processing(queue: str, work: Work, context: str | None, *, linked: bool) -> ExecutionSpan | None:
    """Start the span of an execution; None if none is recorded. ``context``: that of its message.

    ``linked``: it begins a trace of its own, with a link to ``context``.
    """
    return None if _spans is None else _spans.started("process", queue, work, read_traceparent(context), linked=linked)
