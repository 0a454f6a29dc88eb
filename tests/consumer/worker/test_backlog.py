"""Which of the waiting deliveries runs next."""

from typing import cast

from jobtape import job
from jobtape.broker.queue_consumer import Delivery
from jobtape.consumer.worker.backlog import MOST_PROCESSES, Backlog
from jobtape.schemas.queueing.lanes import lane_of
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


def add(backlog: Backlog, n: int, name: str, queue: str = "default") -> None:
    order = facts.ORDER.model_copy(update={"type": name, "queue": queue})
    event = facts.submitted(n, f"0190{n:04x}-0000-7000-8000-000000000000", order)
    backlog.add(cast("Delivery", None), event, 60)


def started(names: list[str], slots: int) -> list[str]:
    """Return the types of the jobs that start when deliveries of ``names`` wait and none has ended."""
    backlog = Backlog(TYPES, slots)
    for n, name in enumerate(names):
        add(backlog, n, name)
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


def lanes_started(backlog: Backlog, n: int, *, always: list[str]) -> str:
    """Return the first letters of the lanes of ``n`` jobs that start while one of each queue ``always`` waits."""
    found = ""
    for i in range(n):
        waiting = {each.event.data.order.queue for lane in backlog._waiting.values() for each in lane}
        for queue in set(always) - waiting:
            add(backlog, i, "free", queue)
        first = backlog.next()
        assert first is not None
        found += lane_of(first.event.data.order.queue)[0]
    return found


def test_lanes_share_slots_by_their_weights_and_none_starves() -> None:
    all_lanes = ["default", "default.high", "default.low"]
    assert lanes_started(Backlog(TYPES, 1), 20, always=all_lanes) == "hhhhhhnnnl" * 2
    assert lanes_started(Backlog(TYPES, 1), 14, always=["default.high", "other.low"]) == "hhhhhhl" * 2
    assert lanes_started(Backlog(TYPES, 1), 8, always=["default", "default.low"]) == "nnnl" * 2


def test_lane_that_was_idle_has_saved_no_more_than_its_part() -> None:
    backlog = Backlog(TYPES, 1)
    assert lanes_started(backlog, 100, always=["default.low"]) == "l" * 100
    found = lanes_started(backlog, 70, always=["default.high", "default.low"])
    assert found == "hhhhhhl" * 10


def test_lane_with_types_at_their_limit_leaves_its_part_to_others() -> None:
    backlog = Backlog(TYPES, 50)
    for n in range(10):
        add(backlog, n, "narrow", "default.high")
        add(backlog, n + 10, "free", "default.low")
    found = []
    while (first := backlog.next()) is not None:
        backlog.take_slot(first.event.data.order.type)
        found.append(first.event.data.order.type)
    assert found[:2] == ["narrow"] * 2 and found[2:] == ["free"] * 10
