"""What is refused of a flow, and what is recorded."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from pydantic import BaseModel

from jobtape import Concurrency, job
from jobtape.producer.service.submission.order_check import order_for
from jobtape.schemas.errors import PayloadInvalid, SubmissionInvalid
from jobtape.schemas.flows.flow import RecordedFlow
from jobtape.schemas.flows.submission import flow_submission
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.declared_gates import DeclaredGates
from jobtape.schemas.submission import Submission, read_submission
from jobtape.settings import Settings


@job("double", ordering_key="x", limits=[Concurrency(2, by="x")])
def double(x: int) -> int:
    return 2 * x


@job("note")
def note(text: str = "noted") -> str:
    return text


class Page(BaseModel):
    """What ``fetch`` returns."""

    links: list[str]
    words: int


@job("fetch")
def fetch(url: str) -> Page:
    return Page(links=[url], words=1)


@job("period")
def period(days: int | None) -> None:
    pass


TYPES = {each.name: each for each in (double, note, fetch, period)}


def order(body: dict[str, Any]) -> Order:
    submission = read_submission(flow_submission(body), Submission)
    return order_for(submission, TYPES, Settings().limits, datetime.now(UTC))


_FETCH: Final = {"f": {"type": "fetch", "payload": {"url": "a"}}}


def refers(path: str, job_type: str = "note", field: str = "text") -> dict[str, Any]:
    """Return a node with what is at the path in the result of ``fetch``."""
    return {"type": job_type, "payload": {field: {"$from": "f", "path": path}}}


@pytest.mark.parametrize(
    ("nodes", "loc", "why"),
    [
        ({"a": refers("/words")}, ("nodes", "a", "payload", "text"), "it is an integer, not a string"),
        ({"a": refers("/link")}, ("nodes", "a", "payload", "text"), "there is never anything at 'link'"),
        ({"a": refers("/links/x")}, ("nodes", "a", "payload", "text"), "there is never anything at 'x'"),
        ({"a": refers("/words/0")}, ("nodes", "a", "payload", "text"), "there is never anything at '0'"),
        ({"a": refers("", "double", "x")}, ("nodes", "a", "payload", "x"), "it is an object, not an integer"),
        ({"a": {"type": "note", "map": {"$from": "f"}}}, ("nodes", "a", "map"), "never a list"),
        (
            {"a": {"type": "note", "map": {"$from": "f", "path": "/links"}}},
            ("nodes", "a", "map"),
            "no payloads of note",
        ),
        (
            {"a": {"type": "note", "map": {"$from": "f", "path": "/links"}, "payload": {"text": {"$item": "/x"}}}},
            ("nodes", "a", "payload", "text"),
            "the item at '/x': there is never anything",
        ),
        (
            {
                "m": {"type": "double", "map": {"$input": "/n"}, "payload": {"x": {"$item": ""}}},
                "a": {"type": "note", "payload": {"text": {"$from": "m"}}},
            },
            ("nodes", "a", "payload", "text"),
            "it is a list, not a string",
        ),
        (
            {
                "w": {"type": "jobtape.flow", "payload": {"nodes": _FETCH}},
                "a": {"type": "note", "payload": {"text": {"$from": "w", "path": "/g"}}},
            },
            ("nodes", "a", "payload", "text"),
            "there is never anything at 'g'",
        ),
        (
            {"w": {"type": "jobtape.flow", "payload": {"nodes": {**_FETCH, "a": refers("/words")}}}},
            ("nodes", "w", "payload", "nodes", "a", "payload", "text"),
            "it is an integer, not a string",
        ),
    ],
)
def test_reference_that_cannot_fit_is_refused_with_its_place(
    nodes: dict[str, Any], loc: tuple[str | int, ...], why: str
) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        order({"input": {"n": [1]}, "nodes": {**_FETCH, **nodes}})
    (fault,) = caught.value.errors
    assert tuple(fault["loc"]) == loc and why in fault["msg"]


def test_result_of_a_node_that_may_not_succeed_may_be_null() -> None:
    a = {"type": "period", "payload": {"days": {"$from": "f"}}}
    order({"nodes": {**_FETCH, "a": {**a, "on": "done"}}})
    with pytest.raises(PayloadInvalid, match="an object, not an integer"):
        order({"nodes": {**_FETCH, "a": a}})


def test_references_that_may_fit_are_accepted() -> None:
    item = {"map": {"$from": "f", "path": "/links"}, "payload": {"text": {"$item": ""}}}
    nodes = {**_FETCH, "a": refers("/links/0"), "b": refers("/words", "double", "x"), "c": {"type": "note", **item}}
    order({"nodes": {**nodes, "d": {"type": "note", "payload": {"text": {"$from": "c", "path": "/0"}}}}})


_INNER: Final = ("nodes", "a", "payload", "nodes")


def within(nodes: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Return a node that is a flow with these nodes and this input."""
    return {"type": "jobtape.flow", "payload": {"input": given, "nodes": nodes}}


def flow_in_flows(depth: int) -> dict[str, Any]:
    return within({"a": flow_in_flows(depth - 1)}) if depth else {"type": "note"}


@pytest.mark.parametrize(
    ("nodes", "loc"),
    [
        ({}, ("nodes",)),
        ({"a b": {"type": "note"}}, ("nodes", "a b", "[key]")),
        ({"a": {"type": "none"}}, ("nodes", "a", "type")),
        ({"a": {"type": "note", "after": ["b"]}}, ("nodes", "a", "after")),
        ({"a": {"type": "note", "after": ["a"]}}, ("nodes", "a", "after")),
        (
            {"a": {"type": "note", "after": ["b"]}, "b": {"type": "note", "after": ["a"]}},
            ("nodes", "a", "after"),
        ),
        ({"a": {"type": "double", "payload": {"x": "one"}}}, ("nodes", "a", "payload", "x")),
        ({"a": {"type": "double", "payload": {"x": {"$from": "b"}}}}, ("nodes", "a", "payload", "x")),
        ({"a": {"type": "double", "payload": {"x": {"$from": 3}}}}, ("nodes", "a", "payload", "x")),
        ({"a": {"type": "double", "payload": {"x": {"$item": ""}}}}, ("nodes", "a", "payload", "x")),
        (
            {"a": {"type": "note"}, "b": {"type": "double", "payload": {"y": {"$from": "a"}}}},
            ("nodes", "b", "payload", "y"),
        ),
        ({"a": {"type": "note", "map": {"$from": "b"}}}, ("nodes", "a", "map")),
        ({"a": {"type": "note", "on": "failure"}}, ("nodes", "a", "after")),
        ({"a": {"type": "note", "on": "never"}}, ("nodes", "a", "on")),
        ({"a": {"type": "note", "limit": 3}}, ("nodes", "a", "limit")),
        ({"a": {"type": "jobtape.rebuild"}}, ("nodes", "a", "type")),
        ({"a": flow_in_flows(8)}, ("nodes", "a", *("payload", "nodes", "a") * 7, "type")),
        ({"a": within({"b": {"type": "double", "payload": {"x": "one"}}})}, (*_INNER, "b", "payload", "x")),
        (
            {"a": within({"b": {"type": "note", "payload": {"text": {"$from": "c"}}}}), "c": {"type": "note"}},
            (*_INNER, "b", "payload", "text"),
        ),
        (
            {"a": within({"b": {"type": "note", "payload": {"text": {"$input": "/t/1"}}}}, t=["a"])},
            (*_INNER, "b", "payload", "text"),
        ),
        ({"a": within({"b": {"type": "double", "map": {"$input": "/no"}}}, t=["a"])}, (*_INNER, "b", "map", "$input")),
        ({"a": within({"b": {"type": "note"}}, t={"$from": "c"})}, ("nodes", "a", "payload", "input", "t")),
        ({"a": {**within({"b": {"type": "note"}}), "queue": "default"}}, ("nodes", "a", "queue")),
        ({"a": {**within({"b": {"type": "note"}}), "map": {"path": "/a"}}}, ("nodes", "a", "map")),
        ({f"n{i}": within({f"n{j}": {"type": "note"} for j in range(40)}) for i in range(25)}, ("nodes",)),
        ({"a": {"type": "note", "queue": "none"}}, ("nodes", "a", "queue")),
        ({f"n{i}": {"type": "note"} for i in range(1001)}, ("nodes",)),
    ],
)
def test_flow_that_cannot_run_is_refused(nodes: dict[str, Any], loc: tuple[str | int, ...]) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        order({"nodes": nodes})
    assert loc in [tuple(fault["loc"]) for fault in caught.value.errors], caught.value.errors


def test_flow_has_no_options_of_nodes() -> None:
    submission = Submission(type="jobtape.flow", payload={"nodes": {"a": {"type": "note"}}}, timeout=3.0)
    with pytest.raises(SubmissionInvalid):
        order_for(submission, TYPES, Settings().limits, datetime.now(UTC))


def test_recorded_node_has_what_its_jobs_need() -> None:
    """The rules of its gates, which follow from results, and which nodes have these."""
    nodes = {"a": {"type": "note", "payload": {}}, "b": {"type": "double", "payload": {"x": {"$from": "a"}}}}
    made = order({"nodes": nodes, "labels": {"tenant": "7"}})
    assert made.gates is not None and made.gates.flow
    flow = RecordedFlow.model_validate(made.payload)
    assert flow.nodes["b"].after == ("a",)
    declared = DeclaredGates.read("double", flow.nodes["b"].declared_gates)
    assert declared.gates({"x": 4}, {}) == double.declared_gates.gates({"x": 4}, {})


def test_flows_may_be_eight_deep_and_refer_to_what_is_outside_by_their_input() -> None:
    order({"nodes": {"a": flow_in_flows(7)}})
    inner = within({"b": {"type": "note", "payload": {"text": {"$input": "/t/1/x"}}}}, t=[1, {"$from": "c"}])
    made = order({"nodes": {"a": inner, "c": {"type": "note"}}, "input": {"t": {"$from": "none"}}})
    flow = RecordedFlow.model_validate(made.payload)
    assert flow.nodes["a"].after == ("c",)
    assert RecordedFlow.model_validate(flow.nodes["a"].order.payload).nodes["b"].after == ()
