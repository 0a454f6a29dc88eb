"""What a caller sees and may submit, by the job types of its API key."""

from typing import Any

import pytest

from jobtape.schemas.access import ANYBODY, Caller, Forbidden, Scope
from jobtape.schemas.flows.flow import FLOW
from jobtape.schemas.submission import NextStep

MAIL = Caller("1", "mail", frozenset({Scope.SUBMIT}), frozenset({"mail.send", "mail.check"}))
ADMIN = Caller("2", "admin", frozenset(Scope))
SUBMITTER = Caller("3", "submitter", frozenset({Scope.SUBMIT}))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], ["mail.check", "mail.send"]),
        (["mail.send"], ["mail.send"]),
        (["mail.*"], ["mail.check", "mail.send"]),
        (["pay"], None),
        (["mail.send", "pay"], None),
        (["pay.*"], None),
    ],
)
def test_filter_is_narrowed_to_types_of_key(wanted: list[str], found: list[str] | None) -> None:
    assert ANYBODY.narrow(wanted) == wanted
    if found is None:
        with pytest.raises(Forbidden, match="is limited to mail"):
            MAIL.narrow(wanted)
    else:
        assert MAIL.narrow(wanted) == found


def flow(*types: str, inner: tuple[str, ...] = ()) -> dict[str, Any]:
    nodes: dict[str, Any] = {f"n{i}": {"type": each, "payload": {}} for i, each in enumerate(types)}
    if inner:
        nodes["inner"] = {"type": FLOW, "payload": flow(*inner)}
    return {"nodes": nodes}


@pytest.mark.parametrize(
    ("job_type", "payload", "allowed"),
    [
        ("mail.send", {}, {"mail", "admin", "submitter"}),
        ("pay", {}, {"admin", "submitter"}),
        ("mail.*", {}, {"admin", "submitter"}),
        ("jobtape.redrive", {"type": ["mail.send"]}, {"admin"}),
        ("jobtape.pause", {"type": "mail.send"}, {"admin"}),
        (FLOW, flow("mail.send", "mail.check"), {"mail", "admin", "submitter"}),
        (FLOW, flow("mail.send", "pay"), {"admin", "submitter"}),
        (FLOW, flow("mail.send", inner=("mail.send", "pay")), {"admin", "submitter"}),
        (FLOW, flow("mail.send", "jobtape.cancel"), {"admin"}),
        (FLOW, {"nodes": {"a": {"type": "pay", "order": {"type": "mail.send"}}}}, {"admin", "submitter"}),
    ],
)
def test_submission_needs_all_its_types(job_type: str, payload: dict[str, Any], allowed: set[str]) -> None:
    for caller in (MAIL, ADMIN, SUBMITTER):
        if caller.name in allowed:
            caller.check_submission(job_type, payload)
        else:
            with pytest.raises(Forbidden):
                caller.check_submission(job_type, payload)


def test_chain_needs_the_types_of_all_its_steps() -> None:
    own, other = NextStep(type="mail.check"), NextStep(type="pay")
    MAIL.check_submission("mail.send", {}, [own])
    SUBMITTER.check_submission("mail.send", {}, [own, other])
    with pytest.raises(Forbidden):
        MAIL.check_submission("mail.send", {}, [own, other])
    with pytest.raises(Forbidden):
        SUBMITTER.check_submission("mail.send", {}, [NextStep(type="jobtape.cancel")])


@pytest.mark.parametrize(
    ("job_type", "payload", "seen"),
    [
        ("mail.send", {}, True),
        ("pay", {}, False),
        ("jobtape.cancel", {"type": ["mail.send"]}, True),
        ("jobtape.cancel", {"type": ["mail.send", "pay"]}, False),
        ("jobtape.cancel", {"type": []}, False),
        ("jobtape.cancel", {}, False),
        ("jobtape.replay", {"types": ["mail.*"]}, False),
        ("jobtape.replay", {"types": ["mail.check"]}, True),
        ("jobtape.webhook", {"endpoint": "x"}, False),
        ("jobtape.schedule", {"type": ["mail.send"]}, False),
        (FLOW, {"nodes": {"a": {"order": {"type": "mail.send", "payload": {}}}}}, True),
        (FLOW, {"nodes": {"a": {"order": {"type": "pay", "payload": {}}}}}, False),
        (FLOW, {"nodes": {}}, False),
        (FLOW, None, False),
    ],
)
def test_job_is_seen_by_all_its_types(job_type: str, payload: dict[str, Any] | None, seen: bool) -> None:
    assert ADMIN.sees_order(job_type, payload)
    assert MAIL.sees_order(job_type, payload) is seen
