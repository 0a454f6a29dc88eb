"""Puts schedules and other rules in force, and finds the ticks whose jobs were submitted."""

from datetime import UTC, datetime
from typing import Any, Final

from jobtape.schemas import ids
from jobtape.schemas.events import Submitted
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Order
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.rules.rules import SCHEDULE
from jobtape.schemas.rules.schedule import SCHEDULE_LABEL, Schedule
from jobtape.schemas.topology import CANCEL_KEY
from tests.consumer.installation import Rig, order_event

ADD: Final = Order(type="add", payload={"x": 1, "y": 2}, queue="default", timeout=30)


async def put(rig: Rig, name: str, order: Order = ADD, **values: Any) -> Submitted:
    """Put a schedule in force and return the event that did."""
    schedule = Schedule(name=name, order=order, **values)
    return await put_rule(rig, SCHEDULE, schedule.model_dump(mode="json", exclude_none=True))


async def put_rule(rig: Rig, job_type: str, payload: dict[str, Any]) -> Submitted:
    """Put a rule in force and return the event that did."""
    event = order_event(rig.topology, job_type, payload, queue="jobtape", gates=Gates(rule=True))
    await rig.publisher.publish(event, [CANCEL_KEY])
    return event


async def end(rig: Rig, rule: Submitted) -> None:
    """End a rule."""
    event = cancelled(evolve(None, rule), source=rig.topology.source, time=datetime.now(UTC))
    await rig.publisher.publish(event, [CANCEL_KEY])


def tick_jobs(rig: Rig, name: str) -> dict[str, datetime]:
    """Return the ids of the jobs that a schedule has submitted and their ticks, in the order of the tape."""
    found: dict[str, datetime] = {}
    for event in rig.events:
        if isinstance(event, Submitted) and event.data.order.labels.get(SCHEDULE_LABEL) == name:
            tick = ids.time_of(event.subject)
            assert tick is not None
            found[event.subject] = tick
    return found


def ticks(rig: Rig, name: str) -> list[datetime]:
    """Return the ticks whose jobs were submitted, in the order of the tape."""
    return list(tick_jobs(rig, name).values())
