"""A payload of an older version is upcast step by step before it is checked, and is not changed itself."""

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
def test_every_version_gives_same_arguments(payload: dict[str, Any], version: int | None) -> None:
    before = repr(payload)
    assert MAIL.arguments(payload, version) == {"recipients": ["ann"], "text": "hello"}
    assert repr(payload) == before
    assert MAIL.version == 3


@pytest.mark.parametrize(
    ("payload", "version", "says"),
    [
        ({}, 1, "version 1 cannot be upcast to version 2: KeyError: 'to'"),
        ({"text": "hello"}, 2, "version 2 cannot be upcast to version 3: KeyError: 'to'"),
        ({"to": {"a": 1}}, 2, "recipients: Input should be a valid array"),
        ({}, 3, "recipients: Field required"),
        ({}, 4, "has version 4, but this process only knows versions up to 3"),
    ],
)
def test_failed_upcast_is_invalid_with_reason(payload: dict[str, Any], version: int, says: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        MAIL.arguments(payload, version)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("lifted", "says"),
    [(None, "returned a NoneType"), ([], "returned a list"), ({"recipients": object()}, "is no JSON")],
)
def test_upcaster_must_return_payload(lifted: Any, says: str) -> None:
    job = JobType(mail, "mail", version=2, upcasters={1: lambda _: lifted})
    with pytest.raises(PayloadInvalid, match=says):
        job.arguments({}, 1)


def test_old_versions_can_be_dropped() -> None:
    job = JobType(mail, "mail", version=3, upcasters={2: second_to_third})
    with pytest.raises(PayloadInvalid, match="has version 1, and there is no upcaster to version 2 any more"):
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
def test_gap_in_upcasters_is_refused(version: Any, steps: tuple[int, ...], says: str) -> None:
    with pytest.raises(JobTypeInvalid) as refused:
        JobType(mail, "mail", version=version, upcasters=dict.fromkeys(steps, first_to_second))
    assert says in str(refused.value)
    assert f"{__name__}.mail" in str(refused.value)
