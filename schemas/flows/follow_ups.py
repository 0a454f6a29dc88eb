"""What a handler returns that ends with the jobs that follow it, and how these are recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.flows.flow import RecordedFlow
from jobtape.schemas.flows.recording import OrderOf, recorded_flow
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import JobTypeSpec

CONTINUATION: Final = "then"
"""The node of the job whose outcome becomes that of the job that it follows."""
MAX_DEPTH: Final = 8
"""How many jobs may be above a job that follows another one."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A message from outside that a job waits for. ``timeout``: seconds after which it is not waited for any more."""

    name: str
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class FollowUps:
    """What a handler returns to name the jobs that follow: ``body`` has the fields of ``FlowBody``.

    ``ctx.then`` makes it.
    """

    body: dict[str, Any]


def recorded_follow_ups(
    body: Mapping[str, Any], order: Order, job_types: Mapping[str, JobTypeSpec], order_of: OrderOf, now: datetime
) -> RecordedFlow:
    """Return what is recorded of the follow-ups of a job with this ``order``. ``now``: from when on timeouts count.

    Raises PayloadInvalid with every fault.
    """
    depth = 0 if order.flow is None else order.flow.depth
    if depth >= MAX_DEPTH:
        raise PayloadInvalid(
            f"the job follows {depth} others already, and follow-ups may be nested {MAX_DEPTH} deep: let it return a "
            "result, or submit a job instead",
            [],
        )
    flow = recorded_flow(body, job_types, order_of)
    signals = {name: signal.model_copy(update={"since": now}) for name, signal in flow.signals.items()}
    return flow.model_copy(update={"signals": signals})
