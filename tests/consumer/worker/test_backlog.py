"""Which of the waiting deliveries runs next."""

from typing import cast

from jobtape import job
from jobtape.broker.queue_consumer import Delivery
from jobtape.consumer.worker.backlog import MOST_PROCESSES, Backlog
from tests.schemas import events_of_a_job as facts


@job("isolated", isolate=True)
def isolated() -> None: ...


@job("wide", isolate=True, concurrency=MOST_PROCESSES + 3)
def wide() -> None: ...


@job("narrow", concurrency=2)
def narrow() -> None: ...


@job("free")
def free() -> None: ...


TYPES = {each.name: each for each in (isolated, wide, narrow, free)}


def started(names: list[str], slots: int) -> list[str]:
    """Return the types of the jobs that start when deliveries of ``names`` wait and none has ended."""
    backlog = Backlog(TYPES, slots)
    for n, name in enumerate(names):
        event = facts.submitted(
            n, f"0190{n:04x}-0000-7000-8000-000000000000", facts.ORDER.model_copy(update={"type": name})
        )
        backlog.add(cast("Delivery", None), event, 60)
    found = []
    while (first := backlog.next()) is not None:
        backlog.take_slot(first.event.data.order.type)
        found.append(first.event.data.order.type)
    return found


def test_isolated_jobs_are_as_many_as_the_machine_has_room_for() -> None:
    assert started(["isolated"] * 100, 50) == ["isolated"] * MOST_PROCESSES
    assert started(["wide"] * 100, 50) == ["wide"] * (MOST_PROCESSES + 3)


def test_jobs_of_other_types_overtake_a_type_at_its_limit() -> None:
    assert started(["narrow", "narrow", "narrow", "free", "narrow", "free"], 50) == ["narrow", "narrow", "free", "free"]
    assert started(["free"] * 10, 3) == ["free"] * 3
