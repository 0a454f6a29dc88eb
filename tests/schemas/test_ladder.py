"""Every delay has exactly one path down the ladder, which takes the right time and ends on one work queue."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas import delay_ladder as ladder
from jobtape.schemas import topology
from jobtape.schemas.job import QUEUE_PATTERN
from jobtape.schemas.topology import Topology
from tests.schemas.test_topology import key_matches

queue_names = st.from_regex(re.compile(QUEUE_PATTERN.replace("$", r"\Z"), re.ASCII))
delays = st.floats(0, ladder.LONGEST) | st.integers(0, int(ladder.LONGEST * 10)).map(lambda steps: steps / 10)
ENTRY = "ns.events"


def way(broker: Topology, key: str, entry: str = ENTRY) -> tuple[list[str], set[str]]:
    """The delay queues that a message with this routing key passes, and the queues where it ends.

    Follows bindings and passages as the broker would, with no notion of levels; a message with two ways shows up as a
    queue that is there twice.
    """
    declared = {queue.name: queue.declared_arguments() for queue in broker.declared_queues()}
    held, ends, there = [], set(), [entry]
    while there:
        exchange = there.pop()
        there += [
            each.target for each in broker.exchange_bindings() if each.source == exchange and key_matches(each.key, key)
        ]
        # A queue has a message once, however many of its bindings match.
        for queue in {
            each.queue for each in broker.bindings() if each.exchange == exchange and key_matches(each.key, key)
        }:
            arguments = declared[queue]
            if "x-message-ttl" in arguments:
                held.append(queue)
                there.append(arguments["x-dead-letter-exchange"])
            else:
                ends.add(queue)
    return held, ends


def hold_time(broker: Topology, held: list[str]) -> int:
    """The delay in milliseconds."""
    ttl = {queue.name: queue.declared_arguments().get("x-message-ttl") for queue in broker.declared_queues()}
    return sum(ttl[queue] or 0 for queue in held)


@given(delays, queue_names)
def test_every_delay_has_one_path_of_its_length(seconds: float, queue: str) -> None:
    broker = Topology("ns").with_queues([queue, "default", "other"])
    held, ends = way(broker, ladder.delay_key(seconds, queue))
    assert ends == {broker.work_queue(queue).name}
    assert len(held) == len(set(held)), "two ways would be two messages"
    total = hold_time(broker, held)
    assert total % 100 == 0
    assert 0 <= total - round(seconds * 1000, 3) < 100, "rounded up, never early"


@given(st.integers(1, 10), st.data())
def test_ladder_of_any_height_holds_delay(levels: int, data: st.DataObject) -> None:
    broker = Topology("ns", ("a", "b"), delay_levels=levels)
    steps = data.draw(st.integers(0, 2**levels - 1))
    held, ends = way(broker, ladder.delay_key(steps * ladder.STEP, "a", levels))
    assert (hold_time(broker, held), ends) == (steps * 100, {"ns.run.a"})


@pytest.mark.parametrize("seconds", [0.1 * n for n in range(200)] + [n / 10 for n in range(200)])
def test_binary_fractions_add_no_step(seconds: float) -> None:
    bits = ladder.delay_key(seconds, "q").split(".")[1:-2]
    assert int("".join(bits), 2) == round(seconds * 10)


def test_thirty_days_fit_and_longer_than_ladder_is_refused() -> None:
    broker = Topology("ns").with_queues(["default"])
    held, ends = way(broker, ladder.delay_key(ladder.LONGEST, "default"))
    assert (hold_time(broker, held), len(ends)) == (30 * 86_400 * 1000, 1)
    longest = (2**ladder.LEVELS - 1) * ladder.STEP
    assert longest > ladder.LONGEST
    assert ladder.delay_key(longest, "q").count(".1") == ladder.LEVELS
    for beyond in (longest + 0.01, 1e9, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"longer than the 3355443\.1 s of the ladder"):
            ladder.delay_key(beyond, "q")
    with pytest.raises(ValueError, match=r"the 0\.7 s"):
        ladder.delay_key(0.8, "q", levels=3)


@pytest.mark.parametrize("seconds", [0, -0.0, -1, -1e300, -math.inf])
def test_due_job_passes_no_delay_queue(seconds: float) -> None:
    assert way(Topology("ns").with_queues(["default"]), ladder.delay_key(seconds, "default")) == (
        [],
        {"ns.run.default"},
    )


@given(delays, queue_names)
def test_key_has_valid_length_and_word_count(seconds: float, queue: str) -> None:
    key = ladder.delay_key(seconds, queue)
    assert len(key.encode()) <= 255
    assert len(key.split(".")) == ladder.LEVELS + 3


@given(delays)
def test_job_for_missing_queue_reaches_no_other_queue(seconds: float) -> None:
    broker = Topology("ns").with_queues(["default", "other"])
    assert way(broker, ladder.delay_key(seconds, "missing"))[1] == set()
    assert broker.due.alternate == broker.unroutable.name
    assert way(broker, ladder.delay_key(seconds, "missing"), broker.unroutable.name) == ([], {"ns.unroutable"})


@given(delays, st.integers(1, 30).filter(lambda levels: levels != ladder.LEVELS))
def test_key_of_other_height_matches_nothing(seconds: float, levels: int) -> None:
    """Processes of two versions may use one broker: a message that took both ladders would be two jobs."""
    longest = (2**levels - 1) * ladder.STEP
    key = ladder.delay_key(min(seconds, longest), "default", levels)
    broker = Topology("ns").with_queues(["default"])
    assert way(broker, key) == ([], set())


def test_undelayed_work_does_not_enter_ladder() -> None:
    broker = Topology("ns").with_queues(["default"])
    for key in (topology.run_key("default"), topology.event_key("submitted", "delay.0.run.x"), topology.BARRIER_KEY):
        assert not [each for each in broker.exchange_bindings() if key_matches(each.key, key)]


def test_delay_queues_lose_nothing() -> None:
    broker = Topology("ns")
    for level in range(ladder.LEVELS):
        arguments = broker.delay_queue(level).declared_arguments()
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-message-ttl"] == 100 * 2**level < 2**32
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"
        assert arguments["x-dead-letter-exchange"] == broker.delay_exchange(level - 1).name != broker.events.name
        # A routing key of its own would lose the bits; a length limit would refuse or drop.
        assert not {"x-dead-letter-routing-key", "x-max-length", "x-max-length-bytes"} & arguments.keys()


@given(st.integers(0, 10))
def test_exchange_bindings_join_declared_exchanges(levels: int) -> None:
    broker = Topology("ns", ("default",), delay_levels=levels)
    exchanges = {exchange.name for exchange in broker.exchanges()}
    for passage in broker.exchange_bindings():
        assert {passage.source, passage.target} <= exchanges
        assert passage.target != broker.events.name, "it would be on the tape a second time"
