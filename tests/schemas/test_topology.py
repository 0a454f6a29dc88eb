"""The topology has nothing that could route work in circles, lose it, or block the tape."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape import job
from jobtape.schemas import topology
from jobtape.schemas.job import QUEUE_PATTERN
from jobtape.schemas.queueing.lanes import base_of, lane_of, lanes_of, queues_of
from jobtape.schemas.rules.rules import PAUSE, RulesInForce
from jobtape.schemas.topology import Bounds, Topology, queue_of, result_patterns

topologies = st.builds(
    lambda namespace, queues: Topology(namespace).with_queues(queues),
    st.from_regex(r"\A[a-z][a-z0-9\-]{0,20}\Z"),
    st.lists(st.from_regex(re.compile(QUEUE_PATTERN.replace("$", r"\Z"), re.ASCII)), max_size=5),
)


@given(topologies)
def test_names_are_unique_and_in_namespace(broker: Topology) -> None:
    queues = [queue.name for queue in (broker.log, *broker.declared_queues())]
    exchanges = [exchange.name for exchange in broker.exchanges()]
    assert len(set(queues)) == len(queues) and len(set(exchanges)) == len(exchanges)
    for name in (*queues, *exchanges):
        assert name.startswith(f"{broker.namespace}.") and len(name) <= 255


@given(topologies)
def test_bindings_join_declared_objects(broker: Topology) -> None:
    queues = {queue.name for queue in (broker.log, *broker.declared_queues())}
    exchanges = {exchange.name for exchange in broker.exchanges()}
    for binding in (*broker.bindings(), *broker.log_bindings):
        assert binding.queue in queues and binding.exchange in exchanges


@given(topologies)
def test_job_reaches_only_its_work_queue(broker: Topology) -> None:
    for queue in broker.queues:
        key = topology.work_key(queue)
        reached = {
            binding.queue
            for binding in broker.bindings()
            if binding.exchange == broker.events.name and binding.key == key
        }
        assert reached == {broker.work_queue(queue).name}


@given(topologies)
def test_only_tape_takes_every_event(broker: Topology) -> None:
    """Another queue that takes all events could fill up and make the broker refuse them."""
    of_tape = {topology.EVENT_KEY, topology.BARRIER_KEY}
    assert broker.events.type == "direct"  # so a key is no pattern
    assert {binding.key for binding in broker.log_bindings} == of_tape
    of_events = {binding.key for binding in broker.bindings() if binding.exchange == broker.events.name}
    assert of_events == {topology.CANCEL_KEY, *map(topology.work_key, broker.queues)}
    assert not of_events & of_tape


@given(topologies)
def test_work_queue_dead_letters_but_not_to_tape(broker: Topology) -> None:
    for queue in broker.queues:
        arguments = broker.work_queue(queue).declared_arguments()
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-delivery-limit"] == topology.DELIVERY_LIMIT
        assert arguments["x-dead-letter-exchange"] == broker.dead.name != broker.events.name
        assert arguments["x-dead-letter-routing-key"]  # otherwise all the message's keys, CC too
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"  # at-least-once needs it
        assert not {"x-max-length", "x-max-length-bytes", "x-message-ttl"} & arguments.keys()


def test_dead_letters_are_kept() -> None:
    broker = Topology("ns")
    assert [binding.queue for binding in broker.bindings() if binding.exchange == broker.dead.name] == [
        broker.dead_queue.name
    ]


def test_tape_is_stream_with_limits() -> None:
    broker = Topology("ns")
    arguments = broker.log.declared_arguments()
    assert arguments["x-queue-type"] == "stream"
    assert arguments["x-stream-max-segment-size-bytes"] < arguments["x-max-length-bytes"]
    assert broker.log not in broker.declared_queues()


def test_with_queues_removes_duplicates() -> None:
    assert Topology("ns").with_queues(["b", "a", "b"]) == Topology("ns", ("a", "b"))


@pytest.mark.parametrize("name", ["a.b", "", "a b", "x" * 65, "#", "*"])
def test_queue_name_is_one_routing_key_word(name: str) -> None:
    assert not re.fullmatch(QUEUE_PATTERN, name)


@pytest.mark.parametrize(
    ("events", "types", "expected"),
    [
        ((), (), ("#",)),
        (("succeeded", "failed"), (), ("failed.#", "succeeded.#")),
        ((), ("mail.*", "add"), ("*.add", "*.mail.#")),
        (("failed",), ("a.b", "mail.*"), ("failed.a.b", "failed.mail.#")),
    ],
)
def test_result_patterns_of_subscription(
    events: Sequence[str], types: Sequence[str], expected: tuple[str, ...]
) -> None:
    assert result_patterns(events, types) == expected


def test_subscriber_queues_have_limits() -> None:
    bounds = Bounds(messages=7, octets=1000, idle=1.5)
    for queue in (Topology("ns").subscription_queue("a", "{}", bounds), Topology("ns").ephemeral_queue("x", bounds)):
        limits = {"x-max-length": 7, "x-max-length-bytes": 1000, "x-overflow": "drop-head", "x-expires": 1500}
        assert queue.declared_arguments().items() >= limits.items()


def test_subscription_is_known_by_the_name_of_its_queue() -> None:
    topology = Topology("ns")
    assert topology.subscription_of(topology.subscription_name("a.sub.b")) == "a.sub.b"
    for other in (Topology("x.ns").subscription_name("a"), Topology("ns2").subscription_name("a"), "ns.run.sub.a"):
        assert topology.subscription_of(other) is None


@pytest.mark.parametrize("queue", ["orders", "orders.high", "run", "run.low"])
def test_name_of_a_work_queue_is_read_back_with_its_lane(queue: str) -> None:
    assert queue_of(Topology("run").work_queue(queue).name) == queue


def test_queue_has_lanes_if_a_job_type_names_one() -> None:
    plain, low = job("plain", queue="a")(lambda: None), job("low", queue="b", lane="low")(lambda: None)
    other = job("other", queue="b")(lambda: None)
    assert queues_of([plain, low, other]) == ["a", "b", "b.high", "b.low"]
    assert queues_of([plain, low, other], ["b", "c"]) == ["b", "b.high", "b.low", "c"]
    assert queues_of([plain, low, other], ["b.low"]) == ["b.low"]
    assert [lane_of(each) for each in lanes_of("b")] == ["high", "normal", "low"]
    assert lanes_of("b.low") == ("b.low",)
    assert [base_of(each) for each in lanes_of("b")] == ["b"] * 3


def test_pause_of_a_queue_pauses_its_lanes() -> None:
    rules = RulesInForce.of([("1", PAUSE, {"queue": "a"}), ("2", PAUSE, {"queue": "b.low"})])
    assert rules.paused_queues == {"a", "a.high", "a.low", "b.low"}
