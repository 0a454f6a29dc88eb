"""Users' validators and upcasters that raise anything: the payload is invalid, with a reason."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from jobtape import job
from jobtape.schemas.errors import PayloadInvalid


class WithoutText(Exception):
    """An exception of which no text can be made."""

    def __str__(self) -> str:
        raise LookupError("no text")

    __repr__ = __str__


class InvalidWithoutText(WithoutText, ValueError):
    """An exception without text that pydantic collects."""


RAISED: list[BaseException] = [
    InvalidWithoutText(),
    WithoutText(),
    LookupError("not known"),
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError(),
    ExceptionGroup("several", [WithoutText()]),
]
INVALID = range(len(RAISED))
RAISED.append(KeyboardInterrupt())


class Payload(BaseModel):
    """A payload whose validator raises what ``RAISED`` has at ``n``."""

    n: int

    @field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        raise RAISED[n]


def upcast(payload: dict[str, Any]) -> dict[str, Any]:
    raise RAISED[payload["n"]]


@job("checked")
def checked(payload: Payload) -> int:
    return payload.n


@job("lifted", version=2, upcasters={1: upcast})
def lifted(n: int) -> int:
    return n


@pytest.mark.parametrize("n", INVALID, ids=lambda n: type(RAISED[n]).__name__)
def test_payload_is_invalid_whatever_its_validator_raises(n: int) -> None:
    with pytest.raises(PayloadInvalid, match="checked"):
        checked.accept({"n": n})


@pytest.mark.parametrize("n", INVALID, ids=lambda n: type(RAISED[n]).__name__)
def test_payload_is_invalid_whatever_its_upcaster_raises(n: int) -> None:
    with pytest.raises(PayloadInvalid, match=f"cannot be upcast to version 2: {type(RAISED[n]).__name__}"):
        lifted.arguments({"n": n}, 1)


def test_keyboard_interrupt_is_not_a_fault_of_the_payload() -> None:
    with pytest.raises(KeyboardInterrupt):
        checked.accept({"n": len(INVALID)})
