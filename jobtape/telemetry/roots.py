"""Decides whether a trace is sampled before its first span is made, because a span that is not recorded costs as well.

Only for the samplers of the SDK: without a parent they look at nothing but the trace id. So the provider that ``setup``
makes has ``Roots`` as its generator of ids. It draws the id, decides as the sampler would, and gives the same id to the
span that is then made: by Jobtape, or by FastAPI for a request. Other samplers are asked by the SDK.
"""

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, TraceIdRatioBased

_LOW: Final = TraceIdRatioBased.TRACE_ID_LIMIT
_RATIO: Final = re.compile(r"TraceIdRatioBased\{(.+)\}")
_ROOT: Final = re.compile(r"ParentBased\{root:(.+?),remoteParentSampled:.*")
"""Descriptions of samplers."""


class Roots(RandomIdGenerator):
    """Generates the ids of a provider. ``sampler``: that of the provider."""

    def __init__(self, sampler: Sampler) -> None:
        self._bound = _bound(sampler.get_description())
        self._decided = threading.local()

    @property
    def decides(self) -> bool:
        """Whether it decides on traces itself."""
        return self._bound is not None

    def leaves_out(self) -> bool:
        """Decide on a new trace, and return whether it is not sampled. Otherwise the caller has to make its first span
        now, in this thread.
        """
        if self._bound is None:
            return False
        low = random.getrandbits(64) | 1  # neither the id nor its second half may be 0
        if low >= self._bound:
            return True
        self._decided.trace_id = random.getrandbits(64) << 64 | low
        return False

    def generate_trace_id(self) -> int:
        """Return the id that was decided for this span, or a new one for a span that was not asked for here."""
        trace_id: int | None = self._decided.__dict__.pop("trace_id", None)
        return super().generate_trace_id() if trace_id is None else trace_id

    def generate_span_id(self) -> int:
        """Return the id that ``giving`` gives, or a new one."""
        span_id: int | None = self._decided.__dict__.pop("span_id", None)
        return super().generate_span_id() if span_id is None else span_id

    @contextmanager
    def giving(self, trace_id: int, span_id: int) -> Iterator[None]:
        """Give these ids to the span that this thread makes inside the block."""
        self._decided.__dict__.update(trace_id=trace_id, span_id=span_id)
        try:
            yield
        finally:
            self._decided.__dict__.clear()


def _bound(description: str) -> int | None:
    """Return below which number the second half of an id has to be so that a sampler samples a trace without a parent.

    None for a sampler that may look at more.
    """
    root = _ROOT.fullmatch(description)
    name = description if root is None else root[1]
    if name == "AlwaysOffSampler":
        return 0
    if name == "AlwaysOnSampler":
        return _LOW + 1
    ratio = _RATIO.fullmatch(name)
    return None if ratio is None else TraceIdRatioBased.get_bound_for_rate(float(ratio[1]))
