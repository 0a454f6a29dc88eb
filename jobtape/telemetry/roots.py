"""Decides whether a trace is sampled before its first span is made, because a span that is not recorded costs as well.

Only for the samplers that OTEL_TRACES_SAMPLER can name: without a parent they look at nothing but the trace id. So the
provider that ``setup`` makes has ``Roots`` as its generator of ids. It draws the id, asks the sampler, and gives the
same id to the span that is then made: by Jobtape, or by FastAPI for a request.
"""

import threading
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler

_NO_PARENT: Final = Context()


class Roots(RandomIdGenerator):
    """Generates the ids of a provider. ``sampler``: that of the provider."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._decided = threading.local()

    def decide(self) -> str | None:
        """Return the trace context of a trace that is not sampled; None if the caller has to make its first span now,
        in this thread.
        """
        trace_id = super().generate_trace_id()
        if self._sampler.should_sample(_NO_PARENT, trace_id, "").decision is not Decision.DROP:
            self._decided.trace_id = trace_id
            return None
        # Flags: the id is random, and the trace is not sampled.
        return f"00-{trace_id:032x}-{self.generate_span_id():016x}-02"

    def generate_trace_id(self) -> int:
        """Return the id that was decided for this span, or a new one for a span that was not asked for here."""
        trace_id: int | None = self._decided.__dict__.pop("trace_id", None)
        return super().generate_trace_id() if trace_id is None else trace_id
