"""A payload of an older version is lifted step by step before it is checked, and is itself left alone."""

from typing import Any

import pytest

from jobtape import JobType
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid


def first_to_second(payload: dict[str, Any]) -> dict[str, Any]:
    payload["to"] = [payload["to"]]  # in place: careless, and without harm
    return payload


def second_to_third(payload: dict[str, Any]) -> dict[str, Any]:
    return {"recipients": payload["to"], "text": payload.get("text", "")}


def mail(recipients: list[str], text: str) -> None:
    """The handler of version 3."""


MAIL = JobType(mail, "mail", version=3, upcasters={1: first_to_second, 2: second_to_third})


@pytest.mark.parametrize(
    ("payload", "version"),
    [
        ({"to": "ann", "text": "hello"}, 1),
        ({"to": ["ann"], "text": "hello"}, 2),
        ({"recipients": ["ann"], "text": "hello"}, 3),
        ({"recipients": ["ann"], "text": "hello"}, None),
    ],
)
def test_every_version_comes_to_the_same(payload: dict[str, Any], version: int | None) -> None:
    before = repr(payload)
    assert MAIL.arguments(payload, version) == {"recipients": ["ann"], "text": "hello"}
    assert repr(payload) == before
    assert MAIL.version == 3


@pytest.mark.parametrize(
    ("payload", "version", "says"),
    [
        ({}, 1, "version 1 does not become one of version 2: KeyError: 'to'"),
        ({"text": "hello"}, 2, "version 2 does not become one of version 3: KeyError: 'to'"),
        ({"to": {"a": 1}}, 2, "recipients: Input should be a valid array"),
        ({}, 3, "recipients: Field required"),
        ({}, 4, "is of version 4, and only 3 is known here"),
    ],
)
def test_what_cannot_be_lifted_is_invalid_with_the_reason(payload: dict[str, Any], version: int, says: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        MAIL.arguments(payload, version)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("lifted", "says"),
    [(None, "gives a NoneType, and no payload"), ([], "gives a list"), ({"recipients": object()}, "is no JSON")],
)
def test_an_upcaster_gives_a_payload(lifted: Any, says: str) -> None:
    job = JobType(mail, "mail", version=2, upcasters={1: lambda _: lifted})
    with pytest.raises(PayloadInvalid, match=says):
        job.arguments({}, 1)


def test_old_versions_may_be_given_up() -> None:
    job = JobType(mail, "mail", version=3, upcasters={2: second_to_third})
    with pytest.raises(PayloadInvalid, match="is of version 1, which nothing makes version 2 any more"):
        job.arguments({"to": "ann"}, 1)


@pytest.mark.parametrize(
    ("version", "steps", "says"),
    [
        (0, (), "a whole number from 1 on, not 0"),
        (True, (), "a whole number from 1 on"),
        ("2", (), "a whole number from 1 on"),
        (2, (), "add upcasters={1: …}"),
        (4, (1, 3), "add upcasters={2: …}"),
        (2, (1, 2), "not for 2"),
        (1, (1,), "not for 1"),
        (2, (0, 1), "not for 0"),
    ],
)
def test_a_gap_is_told_where_the_handler_stands(version: Any, steps: tuple[int, ...], says: str) -> None:
    with pytest.raises(JobTypeInvalid) as refused:
        JobType(mail, "mail", version=version, upcasters=dict.fromkeys(steps, first_to_second))
    assert says in str(refused.value)
    assert f"{__name__}.mail" in str(refused.value)
