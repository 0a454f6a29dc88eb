"""Chains that are submitted as one job, with ``then``."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobtape import Options, chain, job, previous
from jobtape.producer.service.submission.order_check import order_for
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.flows.flow import FLOW, RecordedFlow
from jobtape.schemas.flows.submission import flow_submission
from jobtape.schemas.job import Order
from jobtape.schemas.submission import Submission, read_submission
from jobtape.settings import Settings


@job("double", lane="normal")
def double(x: int) -> int:
    return 2 * x


@job("sum", queue="sums")
def total(parts: list[int]) -> int:
    return sum(parts)


@job("note")
def note(text: str) -> str:
    return text


TYPES = {each.name: each for each in (double, total, note)}


def order(body: dict[str, Any]) -> Order:
    return order_for(read_submission(body, Submission), TYPES, Settings().limits, datetime.now(UTC))


def first(**more: Any) -> dict[str, Any]:
    return {"type": "double", "payload": {"x": 1}} | more


def then(job_type: str, **payload: Any) -> dict[str, Any]:
    return {"type": job_type, "payload": payload}


def test_chain_is_recorded_as_the_flow_of_the_same_steps() -> None:
    then_order = order(
        first(then=[then("double", x={"$previous": ""}), then("sum", parts=[{"$previous": ""}, {"$from": "double"}])])
    )
    flow = chain(double.step(1), double.step(previous), total.step([previous]))
    body = flow_submission(flow.body())
    body["payload"]["nodes"]["sum"]["payload"]["parts"].append({"$from": "double"})
    assert then_order.payload == order(body).payload
    assert then_order.type == FLOW
    assert list(then_order.payload["nodes"]) == ["double", "double-2", "sum"]


def test_options_belong_to_the_first_job_or_to_the_flow() -> None:
    made = order(
        first(
            lane="high",
            timeout=5,
            max_attempts=3,
            ordering_key="k",
            labels={"tenant": "a"},
            correlation_id="c",
            delay=60,
            reply_to="me",
            then=[{**then("sum", parts=[1]), "timeout": 7, "labels": {"part": "sum"}}],
        )
    )
    assert (made.labels, made.correlation_id, made.reply_to) == ({"tenant": "a"}, "c", "me")
    assert made.run_at is not None and made.run_at > datetime.now(UTC)
    nodes = RecordedFlow.model_validate(made.payload).nodes
    one, two = nodes["double"], nodes["sum"]
    assert (one.order.queue, one.order.timeout, one.order.max_attempts) == ("default.high", 5, 3)
    assert (one.ordering_key, one.order.labels, one.order.run_at) == ("k", {}, None)
    assert (two.order.queue, two.order.timeout, two.order.labels, two.after) == (
        "sums",
        7,
        {"part": "sum"},
        ("double",),
    )


def test_submission_without_next_steps_is_a_plain_job() -> None:
    assert order(first(then=[])).type == "double"


@pytest.mark.parametrize(
    ("body", "loc", "why"),
    [
        (first(then=[then("nothing")]), ("then", 0, "type"), "there is no job type 'nothing'"),
        (first(then=[then("note", text=1)]), ("then", 0, "payload", "text"), "valid string"),
        (first(payload={"x": "a"}, then=[then("note", text="a")]), ("payload", "x"), "valid integer"),
        (first(type="nothing", then=[then("note", text="a")]), ("type",), "there is no job type 'nothing'"),
        (
            first(then=[then("note", text="a"), then("double", x={"$previous": "/a~1b"})]),
            ("then", 1, "payload", "x"),
            "the result of the node note",
        ),
        (first(then=[then("note", text={"$previous": ""})]), ("then", 0, "payload", "text"), "not a string"),
        (first(then=[then("note", text={"$previous": 0})]), ("then", 0, "payload", "text"), "JSON Pointer"),
        (first(then=[then("sum", parts=[{"$previous": "a"}])]), ("then", 0, "payload", "parts", 0), "slash"),
        (first(then=[then("sum", parts={"$from": "later"})]), ("then", 0, "payload", "parts"), "no node 'later'"),
        (first(payload={"x": {"$previous": ""}}, then=[then("note", text="a")]), ("payload", "x"), "no step before"),
        (first(payload={"x": {"$from": "sum"}}, then=[then("sum", parts=[1])]), ("payload",), "sum"),
        (first(then=[{**then("note", text="a"), "queue": "none"}]), ("then", 0, "queue"), "no queue 'none'"),
        (first(then=[{**then("note", text="a"), "delay": 5}]), ("then", 0, "delay"), "not permitted"),
        (first(then=["note"]), ("then", 0), "dictionary"),
    ],
)
def test_fault_of_a_step_is_at_its_place_in_the_submission(
    body: dict[str, Any], loc: tuple[str | int, ...], why: str
) -> None:
    with pytest.raises(SubmissionInvalid) as caught:
        order(body)
    faults = {tuple(fault["loc"]): fault["msg"] for fault in caught.value.errors}
    assert why in faults[loc], faults


def test_step_of_a_job_type_carries_its_options() -> None:
    flow = chain(double.step_with(Options(lane="low"), 1), total.step(parts=[previous])).body()
    assert flow["nodes"]["double"] == {"type": "double", "payload": {"x": 1}, "lane": "low"}
    assert flow["nodes"]["sum"]["payload"] == {"parts": [{"$from": "double", "path": ""}]}
