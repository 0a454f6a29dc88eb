"""Arguments reach the handler unchanged, and results are read back unchanged, whatever ``model_dump`` would write."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import (
    BaseModel,
    Secret,
    SecretStr,
)

from jobtape.schemas import plainjson
from jobtape.schemas.job_types.difference import difference
from jobtape.schemas.job_types.job_type import JobTypeSpec
from tests.schemas.value_types import CARRIED, LOGIN, NAMED, Area, Cat, Infinite, Login, Names, job_of, named


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=named)
def test_value_reaches_handler(annotation: Any, value: Any) -> None:
    job = job_of(annotation)
    payload = job.payload(x=value)
    if not isinstance(value, Infinite):  # its texts are no numbers, as its author wanted
        jsonschema.validate(payload, job.json_schema()["payload"])
    arrived = job.arguments(json.loads(plainjson.dumps(payload)))["x"]
    assert difference(value, arrived) is None
    assert "*****" not in str(payload)
    assert job.arguments(job.accept(payload)).keys() == {"x"}


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=named)
def test_result_is_read_back(annotation: Any, value: Any) -> None:
    job = job_of(annotation)
    plain = job.result(value)
    assert difference(value, job.read_result(json.loads(plainjson.dumps(plain)))) is None
    assert "*****" not in str(plain)


@pytest.mark.parametrize(
    ("model", "value"), [(type(value), value) for _, value in CARRIED if isinstance(value, BaseModel)], ids=named
)
def test_model_alone_reaches_handler(model: type[BaseModel], value: BaseModel) -> None:
    def handler(whole: Any) -> None: ...

    handler.__annotations__ = {"whole": model}
    job = JobTypeSpec(handler, "alone")
    assert difference(value, next(iter(job.arguments(job.payload(value)).values()))) is None


def test_payload_has_validation_names_and_result_serialization_names() -> None:
    job = job_of(Names)
    payload = job.payload(NAMED)
    assert payload == {"One": 1, "TwoIn": 2, "three": 3, "vier": 4, "five": 5}
    assert job.arguments({"One": 1, "TwoIn": 2, "deep": {"four": 4}, "path": [5]})["x"] == NAMED
    assert job.result(NAMED) == {"One": 1, "twoOut": 2, "threeOut": 3, "four": 4, "five": 5}
    assert job_of(Area).payload(Area(width=2, height=3)) == {"width": 2, "height": 3}
    assert job_of(Area).result(Area(width=2, height=3)) == {"width": 2, "height": 3, "area": 6}


def test_users_classes_are_unchanged() -> None:
    job_of(Login).payload(x=LOGIN)
    assert LOGIN.model_dump(mode="json")["password"] == "**********"
    assert Area(width=2, height=3).model_dump() == {"width": 2, "height": 3, "area": 6}
    assert Cat.model_validate({"type": "cat", "more": 1}) == Cat()


def test_json_schema_hides_default_of_secret() -> None:
    class Defaults(BaseModel):
        text: SecretStr = SecretStr("hunter2")
        any_text: Secret[str] = Secret("hunter2")
        several: list[SecretStr] = [SecretStr("hunter2")]
        plain: str = "seen"

    shown = str(job_of(Defaults).json_schema())
    assert "hunter2" not in shown
    assert "***" not in shown
    assert "seen" in shown
