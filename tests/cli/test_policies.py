"""What the doctor says of policies: where it sees them, and where it sees only what they did."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from jobtape.cli.doctor.broker_policies import Policy, policies_of
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.policies import examine_policies
from jobtape.consumer.folding import outbox_row
from jobtape.schemas.effects import put_back, put_back_dropped
from jobtape.schemas.events import submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, Order
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tools.brokers.node import PrivateNode

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TOPOLOGY = Topology("doctored", delay_levels=3).with_queues(["default"])


def a_job() -> Job:
    order = Order(type="add", payload={}, queue="default", timeout=30.0)
    return evolve(None, submitted("01890a5d-ac96-774b-bcce-b302099a8057", order, source="/jobtape/x", time=NOW))


def examined(store: Store, **settings: Any) -> Findings:
    found = Findings()
    examine_policies(found, Settings(management_url="http://127.0.0.1:1", **settings), TOPOLOGY, store)
    return found


def test_each_policy_is_named_with_queue_value_and_what_to_do(node: PrivateNode, store: Store) -> None:
    names = ["ttl", "length", "tape", "roomy"]
    given = [
        ("set_policy", r"^doctored\.", {"message-ttl": 60000}, "0"),
        ("set_operator_policy", r"^doctored\.run\.", {"max-length": 5, "delivery-limit": 3}, "0"),
        ("set_policy", r"^doctored\.log$", {"max-age": "1h"}, "5"),
        ("set_operator_policy", r"^doctored\.log$", {"max-length-bytes": 10**15}, "5"),
    ]
    try:
        for name, (kind, pattern, definition, priority) in zip(names, given, strict=True):
            options = ["--apply-to", "queues", "--priority", priority]
            node.ctl(kind, name, pattern, json.dumps(definition), *options)
        found = examined(store, rabbitmq_url=node.url, rabbitmqctl=str(node.ctl_program))
    finally:
        for name, (kind, *_) in zip(names, given, strict=True):
            node.ctl(kind.replace("set", "clear"), name)
    said = {item.what: item.todo or "" for item in found.items if item.level == "wrong"}
    (work,) = [what for what in said if "message-ttl: 60000 on doctored.run.default: jobs that wait" in what]
    assert "the policy 'ttl' sets" in work
    assert "`rabbitmqctl clear_policy ttl`" in said[work]
    (full,) = [what for what in said if "max-length: 5 on doctored.run.default" in what]
    assert "the operator policy 'length' sets" in full
    assert "clear_operator_policy length" in said[full]
    assert any("delivery-limit: 3 on doctored.run.default" in what for what in said)
    assert any("max-age: 1h on doctored.log" in what for what in said)
    assert any("on doctored.dead, doctored.unroutable: jobs that the broker gave up" in what for what in said)
    assert not any("roomy" in what for what in said), "what was declared is less"
    assert not any("doctored.delay" in what for what in said), "the ladder's levels are shorter than a minute"


def test_what_was_dropped_is_named_where_policies_cannot_be_seen(store: Store) -> None:
    store.create_checkpoint()
    assert store.take_lease("me", 60)
    effect = put_back_dropped(a_job(), "expired", source="/jobtape/x", time=NOW)
    assert effect is not None
    assert store.add_effects("me", [outbox_row(effect)])
    (dropped, unseen) = examined(store).items
    assert (dropped.level, unseen.level) == ("wrong", "note")
    assert "from the queue default 1 times of late (expired): a policy sets message-ttl" in dropped.what
    assert "list_operator_policies" in (unseen.todo or "")


def test_the_highest_priority_of_each_kind_holds() -> None:
    low, high = Policy("low", "^a", "queues", 1, {}), Policy("high", "^a", "all", 2, {})
    operator = Policy("op", "b$", "queues", 0, {}, operator=True)
    streams = Policy("streams", ".", "streams", 9, {})
    assert policies_of("ab", "quorum", [low, high, operator, streams]) == [high, operator]
    assert policies_of("ab", "stream", [low, high, streams]) == [streams]
    assert policies_of("c", "quorum", [low, high, Policy("bad", "(?", "all", 9, {})]) == []


@pytest.mark.parametrize("placed", [1, 4, 50])
def test_what_was_dropped_is_put_back_however_often_and_later_each_time(placed: int) -> None:
    job = replace(a_job(), placed=placed)
    effect = put_back_dropped(job, "maxlen", source="/jobtape/x", time=NOW)
    assert effect is not None
    assert effect.event.name == "requeued"
    assert effect.wait == {1: 0.5, 4: 4.0, 50: 30.0}[placed]
    lost = put_back(job, "lost", source="/jobtape/x", time=NOW, dropped=placed - 1)
    assert lost is not None
    assert lost.event.name == "requeued", "drops do not count towards what is put back at most"
