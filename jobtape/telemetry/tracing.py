"""Passes the W3C trace context on, from a request to the events of its job, and makes spans where OpenTelemetry is on.

Theory of operation. The event ``submitted`` carries a ``traceparent``: the context in which it was published. Without
OpenTelemetry it is that of the request that submitted the job, and holds for all events of the job. With it, each step
makes a span and passes that span's context on, so that a trace shows every step. ``spans`` makes the spans; nothing
here imports OpenTelemetry before ``enable``.
"""

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final

from jobtape.telemetry.work import ExecutionSpan, Send, Work

if TYPE_CHECKING:
    from jobtape.telemetry.request_span import RequestSpan
    from jobtape.telemetry.spans import Below, Spans

log = logging.getLogger(__name__)

EXTRA: Final = "pip install 'jobtape[otel]'"
HEADER: Final = "traceparent"
_FORMAT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_SIZE: Final = 55
"""Characters of a context in version 00."""

_given: ContextVar[str | None] = ContextVar("jobtape_traceparent", default=None)
"""The context that a request or a handler's job has brought."""
_spans: "Spans | None" = None


def read_traceparent(text: str | None) -> str | None:
    """Return the trace context in a text, such as the value of a header, in version 00; None if it is not valid."""
    if text is None or (found := _FORMAT.fullmatch(text.strip())) is None:
        return None
    read, rest = found.group(0, 1)
    if read.startswith("00"):
        return None if rest else read
    return None if read.startswith("ff") else f"00{read[2:_SIZE]}"


def in_headers(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the trace context in the headers of an ASGI scope; None without exactly one that is valid."""
    found = [value for name, value in headers if name == b"traceparent"]
    return read_traceparent(found[0].decode("latin-1")) if len(found) == 1 else None


class Within:
    """Makes a trace context the current one inside a ``with`` block, where there is no OpenTelemetry."""

    __slots__ = ("_context", "_token")

    _token: Token[str | None]

    def __init__(self, context: str) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _given.set(self._context)

    def __exit__(self, *_: object) -> None:
        _given.reset(self._token)

    def noting_status(self, send: Send) -> Send:
        """Return ``send`` of ASGI. Nothing notes the status of the response."""
        return send


def request(scope: MutableMapping[str, Any], method: str) -> "RequestSpan | Below | Within | None":
    """Start the span of a request. Without one, return a block with the trace context to pass on; None if it has none.

    ``scope``: of ASGI. ``method``: that of the client.
    """
    context = in_headers(scope["headers"])
    if _spans is not None:
        return _spans.request(scope, context, method)
    return None if context is None else Within(context)


def passed_on(scope: MutableMapping[str, Any]) -> "Below | Within | None":
    """Same as ``request``, for a request that has no span in any case."""
    return _block(in_headers(scope["headers"]))


def enable() -> None:
    """Make spans from now on, if a tracer provider is set in this process: by ``setup`` or by the application."""
    global _spans  # noqa: PLW0603 - one for the process, as OpenTelemetry has it
    _spans = None
    if is_configured():
        try:
            from jobtape.telemetry import spans  # noqa: PLC0415 - imports OpenTelemetry
        except ImportError:  # FastAPI brings OpenTelemetry's API without its SDK
            log.warning("Jobtape makes no traces: OpenTelemetry's SDK is not installed: %s", EXTRA)
        else:
            _spans = spans.Spans()


def is_configured() -> bool:
    """Return whether this process has a tracer provider that somebody has set."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


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


def within(context: str | None) -> AbstractContextManager[None]:
    """Return a block in which ``context`` is the current one. None, or a text that is none, changes nothing."""
    return _block(read_traceparent(context)) or nullcontext()


def _block(context: str | None) -> "Below | Within | None":
    if context is None:
        return None
    return Within(context) if _spans is None else _spans.below(context)


def enter_handler(context: str | None, span: ExecutionSpan | None = None) -> None:
    """Make the execution's span the current one in the context in which its handler runs, which ends with it.

    ``context``: that of the span, as ``read_traceparent`` returns it. Without ``span``, as in a process of its own, the
    handler's spans are still below it.
    """
    _given.set(context)
    if _spans is not None:
        _spans.enter(context, span)


def for_submission() -> str | None:
    """Return the context for a submission that has no span of its own. See ``sending``."""
    if _spans is not None and (current := _spans.for_submission()) is not None:
        return current
    return _given.get()


def sending(destination: str, work: Work) -> AbstractContextManager[str | None]:
    """Return a block that is the span of a publish to ``destination``. Its value is the context for the event: that of
    the span, or the given one, or ``UNSAMPLED`` for the first span of a trace that is not sampled.
    """
    given = _given.get()
    return nullcontext(given) if _spans is None else _spans.sending(destination, work, given)


def placing(destination: str, work: Work, parent: str | None) -> ExecutionSpan | None:
    """Start the span of a publish below ``parent``, for callers that end it later. None if none is recorded."""
    return None if _spans is None else _spans.started("send", destination, work, read_traceparent(parent))


def processing(queue: str, work: Work, context: str | None, *, linked: bool) -> ExecutionSpan | None:
    """Start the span of an execution; None if none is recorded. ``context``: that of its message, as
    ``read_traceparent`` returns it.

    ``linked``: it begins a trace of its own, with a link to ``context``.
    """
    return None if _spans is None else _spans.started("process", queue, work, context, linked=linked)
